"""LightningDiT as a component of diffusers pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from lwd.errors import UserError
from lwd.groups import Layout
from lwd.models import LightningDiT


class LwdTransformer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """``network``, a `LightningDiT`, saved and loaded as diffusers does; a model like it for `lwd.sample`.

    The arguments are the network's, with its layout as plain data. Weights are float32: for bfloat16 arithmetic call
    the pipeline under ``torch.autocast``, as training does.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        layout: list[dict[str, Any]],
        input_size: int,
        num_classes: int,
        depth: int,
        width: int,
        heads: int,
        patch_size: int = 1,
        mlp_ratio: float = 4.0,
        feature_dim: int | None = None,
        repa_block: int = 2,
        projector_width: int = 2048,
        time_order: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.network = LightningDiT(
            Layout(layout),
            input_size,
            num_classes,
            depth,
            width,
            heads,
            patch_size,
            mlp_ratio,
            feature_dim,
            repa_block,
            projector_width,
            time_order,
        )

    @classmethod
    def from_network(cls, network: LightningDiT) -> LwdTransformer:
        """Around ``network`` itself, which is not copied."""
        config = network._hub_mixin_config  # what `save_model` writes
        assert isinstance(config, dict)
        with torch.device("meta"):
            adapter: LwdTransformer = cls(**{**config, "layout": network.layout.to_list()})
        adapter.network = network
        adapter.eval()
        return adapter

    @property
    def layout(self) -> Layout:
        """The groups of the latents."""
        return self.network.layout

    @property
    def input_size(self) -> int:
        """Height = width of the latents."""
        return self.network.input_size

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a latent."""
        return self.network.shape

    @property
    def num_classes(self) -> int:
        """Labels are 0 to this less one."""
        return self.network.num_classes

    @property
    def null_label(self) -> int:
        """The label that stands for "no class"."""
        return self.network.null_label

    def forward(self, z: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """z (B, C, H, W), times (B, G), labels (B,) -> local velocities (B, C, H, W)."""
        if self.dtype != torch.float32:
            raise UserError(
                f"transformer: weights are {self.dtype}, must be float32; for faster arithmetic keep them so and call "
                "the pipeline under torch.autocast"
            )
        v: Tensor = self.network(z, times, labels)
        return v
