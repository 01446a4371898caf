"""What training begins with: the network, fresh or out of another one."""

from __future__ import annotations

from typing import Any

from torch import nn

from lwd.data.shards import LatentShards
from lwd.errors import UserError
from lwd.models.build import check_network
from lwd.models.start import freeze, grown_order, read_giver, start_from
from lwd.models.start.lora import add_adapters
from lwd.runtime.processes import Processes
from lwd.runtime.seeding import Stream, seeded
from lwd.stages.train.settings import TrainConfig

START = "start.json"
"""Of a run with ``train.init_from``: what was taken from where, tensor by tensor."""


def begin(config: TrainConfig, shards: LatentShards, processes: Processes) -> tuple[nn.Module, dict[str, Any] | None]:
    """The network on the process's device, and what `START` says of it; None where it is fresh.

    Raises UserError where it does not fit the data, or the network that it should begin as.
    """
    settings = config.train
    giver = None if settings.init_from is None else read_giver(settings.init_from)
    order = None if giver is None or giver.record.network is not None else grown_order(giver.record, config.layout)
    with seeded(Stream.INITIALISE, config.seed):
        model = config.model.build(config.layout, shards.shape, shards.feature_dim, order).to(processes.device)
    check_network(model, shards.feature_dim, settings.label_dropout, shards.feature_grid)
    said = None
    if giver is not None:
        account = start_from(model, giver, settings.init_classes)
        processes.say(f"train {settings.name}: from {settings.init_from}, {account}")
        said = {"from": str(settings.init_from), "fingerprint": giver.fingerprint, **account.to_json()}
    if settings.freeze:
        processes.say(f"train {settings.name}: {freeze(model, settings.freeze)} parameters frozen")
    if settings.lora is not None:
        if config.compute.shard:
            raise UserError("train.lora: adapters are not divided among processes; leave compute.shard out")
        with seeded(Stream.INITIALISE, config.seed):
            layers = add_adapters(model, **vars(settings.lora))
        processes.say(f"train {settings.name}: adapters of rank {settings.lora.rank} in {layers} layers")
    return model, said
