"""What `lwd train` trains, as far as its memory depends on it."""

from __future__ import annotations

from torch import nn

from lwd.models.start import freeze
from lwd.models.start.lora import add_adapters
from lwd.planning import Trained
from lwd.stages.train.settings import TrainConfig


def trained(config: TrainConfig, shape: tuple[int, ...], feature_dim: int | None) -> Trained:
    """The main run's network, on latents with trailing axes ``shape`` and REPA features of ``feature_dim`` channels."""
    s = config.train

    def frozen(network: nn.Module) -> None:
        if s.freeze:
            freeze(network, s.freeze)
        if s.lora is not None:
            add_adapters(network, **vars(s.lora))

    features = feature_dim if s.repa_weight > 0 else None
    return Trained(config.model, config.layout, shape, s.batch, 1 + len(s.posthoc_ema), features, frozen)
