"""The record of how a network was built, config.json in its folder; read without running any code of the network's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PositiveInt
from torch import nn

from lwd import records
from lwd.errors import UserError
from lwd.files import read_json
from lwd.groups import Group, Layout
from lwd.runtime.hub import CONFIG, built_with

NETWORK = "network"
"""The key that only config.json of a user's own network has: the name of what built it."""


@dataclass(frozen=True)
class Record:
    """``network``: what built it, None for LightningDiT; the latents' layout and trailing axes; the number of classes.

    ``arguments``: all that the builder was given.
    """

    network: str | None
    layout: Layout
    shape: tuple[int, ...]
    num_classes: int
    arguments: dict[str, Any]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape (C, ...) of one latent."""
        return (self.layout.channels, *self.shape)


def write_record(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Write config.json of a user's own network."""
    layout, shape = arguments["layout"].to_list(), list(arguments["shape"])
    return {NETWORK: name, **arguments, "layout": layout, "shape": shape}


def record_of(network: nn.Module) -> Record:
    """Record of a network that `lwd.models` built or loaded. Raises ValueError, TypeError or KeyError for another."""
    return _parse(built_with(network))


class ConfigFile(records.Record):
    """config.json, as far as every network's is alike, and the sizes of LightningDiT's."""

    what: ClassVar[str] = "a LightningDiT's config, nor another network's"
    remedy: ClassVar[str] = "name a folder that `lwd train`, `lwd export` or `lwd convert` wrote"

    network: str | None = None
    layout: tuple[Group, ...] = Field(min_length=1)
    num_classes: int = Field(ge=0, le=2**24)
    shape: tuple[PositiveInt, ...] | None = None
    input_size: records.Size | None = None
    depth: records.Size | None = None
    width: records.Size | None = None
    heads: records.Size | None = None
    patch_size: records.Size | None = None
    mlp_ratio: float | None = Field(default=None, gt=0, le=64)
    feature_dim: records.Size | None = None
    projector_width: records.Size | None = None


def read_record(folder: Path) -> Record:
    """Read the record of a model folder. Raises UserError where config.json does not say."""
    data = read_json(folder / CONFIG)
    records.as_record(data, ConfigFile, str(folder / CONFIG))
    try:
        return _parse(data)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG}: not a LightningDiT's config, nor another network's ({error})") from error


def _parse(config: Mapping[str, Any]) -> Record:
    layout, classes = Layout(config["layout"]), int(config["num_classes"])
    if NETWORK not in config:
        return Record(None, layout, (int(config["input_size"]),) * 2, classes, {**config, "layout": layout})
    name, shape = config[NETWORK], tuple(int(n) for n in config["shape"])
    if not isinstance(name, str):
        raise TypeError(f"{NETWORK} must be a name")
    arguments = {key: value for key, value in config.items() if key != NETWORK}
    return Record(name, layout, shape, classes, {**arguments, "layout": layout, "shape": shape})
