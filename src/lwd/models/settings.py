"""The section ``model`` of a config: a size of LightningDiT, or a network of the user's own with its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

import torch
from pydantic import (
    Field,
    JsonValue,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from torch import nn

from lwd.config import Config
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.models.build import build_network
from lwd.models.flops import training_flops
from lwd.models.registry import BUILDERS, is_path
from lwd.models.sizes import build_lightningdit, parse_name

Size = Annotated[int, Field(gt=0, le=2**20)]
"""Of a table or a layer: a million classes fit, and what is beyond is a slip that no memory holds."""
Depth = Annotated[int, Field(gt=0, le=2**12)]


class ModelConfig(Config):
    """The choice of a network: a size of LightningDiT, and whatever of it differs; or a registered name or the path
    ``module:attribute`` of a function that builds one, to which every other key is handed on."""

    name: str = "LightningDiT-XL/1"
    """A size as in the README (LightningDiT-XL/1: patch 1), a registered network, or MODULE:FUNCTION that builds
    yours."""
    num_classes: Size = 1000
    """How many labels; one more, the last, stands for none."""
    depth: Depth | None = None
    """Blocks; null: the size's."""
    width: Size | None = None
    """Channels of a token; null: the size's."""
    heads: Size | None = None
    """Of attention; null: the size's."""
    projector_width: Size | None = None
    """Hidden channels of the REPA head; null: 2048, as published."""
    repa_block: PositiveInt = 2
    """After how many blocks the REPA head reads."""
    settings: dict[str, JsonValue] = Field(default_factory=dict, exclude=True)
    """Of an own network: all keys but ``name`` and ``num_classes``, which in a file stand beside these two."""

    @model_validator(mode="before")
    @classmethod
    def _collect_settings(cls, data: Any) -> Any:
        name = data.get("name") if isinstance(data, Mapping) else None
        if not isinstance(name, str) or not is_own(name):
            return data
        common = {key: data[key] for key in ("name", "num_classes") if key in data}
        return common | {"settings": {key: value for key, value in data.items() if key not in common}}

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        if not is_own(name):
            parse_name(name)
        return name

    @model_validator(mode="after")
    def _settings_have_a_network(self) -> Self:
        if self.settings and not is_own(self.name):
            raise ValueError(f"settings: {self.name} has none; only an own network, module:attribute, has")
        return self

    @model_serializer(mode="wrap")
    def _as_in_a_file(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        if is_own(self.name):
            return {"name": self.name, "num_classes": self.num_classes, **self.settings}
        return dict(plain(self))

    def build(
        self,
        layout: Layout,
        shape: tuple[int, ...],
        feature_dim: int | None = None,
        time_order: Sequence[str] | None = None,
    ) -> nn.Module:
        """The network, freshly initialised from torch's global generator; ``shape``: the latents' trailing axes.

        ``time_order``: LightningDiT's, which only a network that it starts from decides (`lwd.models.start`).
        """
        if is_own(self.name):
            return build_network(self.name, layout, shape, self.num_classes, self.settings, feature_dim)
        sizes = self.model_dump(exclude={"num_classes"})
        return build_lightningdit(
            layout, shape, self.num_classes, feature_dim=feature_dim, time_order=time_order, **sizes
        )

    def training_flops(self, layout: Layout, shape: tuple[int, ...], feature_dim: int | None = None) -> int | None:
        """Operations of one sample's training step, counted without any weights; None where that cannot be done."""
        try:
            with torch.device("meta"):
                model = self.build(layout, shape, feature_dim)
        except UserError:
            raise
        except Exception:  # not every network can be built without data; nothing but a number depends on it
            if is_own(self.name):
                return None
            raise
        return training_flops(model, project=feature_dim is not None)


def is_own(name: str) -> bool:
    """Whether a name is that of a user's network; raises ValueError for a path that is none."""
    return name in BUILDERS or is_path(name)
