"""What the main run takes."""

from __future__ import annotations

import torch

from lwd.models import training_flops
from lwd.train.loop import TrainConfig


def main_flops(config: TrainConfig) -> int:
    """Operations of ``train.steps`` steps, forward and backward, of the network that the shards call for."""
    settings = config.train
    shards = config.shards("train", features=settings.repa_weight > 0)
    with torch.device("meta"):
        model = config.model.build(config.layout, shards.input_size, shards.feature_dim)
    return settings.steps * settings.batch * training_flops(model, project=shards.feature_dim is not None)
