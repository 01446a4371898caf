"""LightningDiT for composite latents: a plain function of (z, local times, labels)."""

# No `from __future__ import annotations` here: the Hub mixin reads __init__'s annotations to decode config.json.

from collections.abc import Sequence
from typing import Literal, overload

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lwd.groups import Layout
from lwd.models.embedders import LocalTimesEmbedder, sincos_table, split_order
from lwd.models.layers import Block, FinalLayer, rotary_table
from lwd.models.parts import PartedConv2d, PartedLinear

VARIANTS = 64
"""Of a compiled block in one process. Each width of network has, with gradients, without and under inference_mode, one
for its first batch size, one for all others and one for a batch of 1: PyTorch's limit of 8 ends a process that trains,
samples with guidance and evaluates, since beyond it ``fullgraph`` is an error."""


class LightningDiT(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="lwd",
    tags=["lwd", "latent-diffusion", "flow-matching"],
    coders={Layout: (Layout.to_list, Layout)},
):
    """The diffusion transformer of the paper (Section 4.1), after VA-VAE's LightningDiT and SFD.

    ``layout``: the groups; ``input_size``: height = width of the latent; ``num_classes``: labels 0 .. num_classes - 1,
    and num_classes itself is the null class (`null_label`). ``feature_dim``: channels of the REPA features, None for no
    projector; ``repa_block``: after how many blocks the hidden state is projected. ``time_order``: in which order the
    embeddings of the local times are concatenated (None: layout order), with a + before those that are added instead:
    ("a", "+b") is a network of one group, to which b was joined (`lwd.models.start`).

    With ``checkpoint_blocks`` set, only the blocks' inputs are kept for the backward pass, and the rest is recomputed.

    Raises ValueError for sizes that do not fit together.
    """

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(
        self,
        layout: Layout,
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
        sizes = {"input_size": input_size, "num_classes": num_classes, "depth": depth, "width": width, "heads": heads}
        sizes |= {"patch_size": patch_size, "feature_dim": 1 if feature_dim is None else feature_dim}
        if wrong := [name for name, size in sizes.items() if size < 1]:
            raise ValueError(f"{wrong[0]} must be at least 1, got {sizes[wrong[0]]}")
        if input_size % patch_size:
            raise ValueError(f"input_size {input_size} is not a multiple of patch_size {patch_size}")
        if width % heads or (width // heads) % 4 or width % 4:
            raise ValueError(f"width {width} over {heads} heads: 2-D rotary embedding needs a multiple of 4 per head")
        if feature_dim is not None and not 1 <= repa_block <= depth:
            raise ValueError(f"repa_block {repa_block} must lie between 1 and depth {depth}")
        self.layout, self.num_classes, self.input_size = layout, num_classes, input_size
        self.patch_size, self.repa_block, self.heads = patch_size, repa_block, heads
        self.checkpoint_blocks = False
        grid = input_size // patch_size

        _, added = split_order(time_order or ())
        if added:
            self.x_embedder: nn.Conv2d = PartedConv2d(layout, added, width, patch_size)
        else:
            self.x_embedder = nn.Conv2d(layout.channels, width, patch_size, stride=patch_size)
        self.pos_embed = nn.Parameter(sincos_table(width, grid)[None], requires_grad=False)
        cos, sin = rotary_table(width // heads, grid)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", sin, persistent=False)
        self.t_embedder = LocalTimesEmbedder(layout.names, time_order or layout.names, width)
        self.y_embedder = nn.Embedding(num_classes + 1, width)
        self.blocks = nn.ModuleList([Block(width, heads, mlp_ratio) for _ in range(depth)])
        self.final_layer = FinalLayer(width, patch_size**2 * layout.channels)
        if added:
            self.final_layer.linear = PartedLinear(layout, added, width, patch_size)
        self.repa_projector = _projector(width, projector_width, feature_dim) if feature_dim is not None else None
        self._initialise()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a latent."""
        return self.layout.channels, self.input_size, self.input_size

    @property
    def token_grid(self) -> tuple[int, int]:
        """The grid (h, w) of the tokens, and so of the REPA projections."""
        return (self.input_size // self.patch_size,) * 2

    @property
    def null_label(self) -> int:
        """The label that stands for "no class"."""
        return self.num_classes

    @overload
    def forward(self, z: Tensor, times: Tensor, labels: Tensor, project: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, z: Tensor, times: Tensor, labels: Tensor, project: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, z: Tensor, times: Tensor, labels: Tensor, project: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """z (B, C, H, W), times (B, G) in layout order, labels (B,) int64 -> local velocities v (B, C, H, W).

        With ``project``, also the REPA projection (B, L, feature_dim) of the hidden state after ``repa_block`` blocks.
        """
        x = self.x_embedder(z).flatten(2).transpose(1, 2) + self.pos_embed  # (B, L, D)
        condition = self.t_embedder(times) + self.y_embedder(labels)
        projected = x
        for depth, block in enumerate(self.blocks, start=1):
            arguments = (x, condition, self.rotary_cos, self.rotary_sin)
            if self.checkpoint_blocks and torch.is_grad_enabled():
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
            if project and depth == self.repa_block:
                if self.repa_projector is None:
                    raise ValueError("this model has no REPA projector; create it with feature_dim")
                projected = self.repa_projector(x)
        v = self._unpatchify(self.final_layer(x, condition))
        return (v, projected) if project else v

    def compile_blocks(self) -> None:
        """Compile each block in place (regional compilation): one graph without breaks, shared by all of them.

        Raises PyTorch's limit of variants of one function (``torch._dynamo.config.recompile_limit``) to `VARIANTS`.
        """
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, VARIANTS)
        for block in self.blocks:
            block.compile(fullgraph=True)

    def _unpatchify(self, x: Tensor) -> Tensor:
        """(B, L, p p C), each token its patch row by row with channels last -> (B, C, H, W)."""
        p, grid = self.patch_size, self.input_size // self.patch_size
        x = x.view(-1, grid, grid, p, p, self.layout.channels)
        size = self.input_size
        return torch.einsum("bhwpqc->bchpwq", x).reshape(-1, self.layout.channels, size, size)

    def _initialise(self) -> None:
        """Initialise as released: linear maps by Xavier, embeddings N(0, 0.02^2), modulations and the output 0.

        And the last layer of the embedders of added groups 0.
        """
        linears = {name: module for name, module in self.named_modules() if isinstance(module, nn.Linear)}
        for name, linear in linears.items():
            nn.init.zeros_(linear.bias)
            if "adaLN_modulation" in name or name == "final_layer.linear":
                nn.init.zeros_(linear.weight)
            elif name.startswith("t_embedder"):
                nn.init.normal_(linear.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(linear.weight)
        for name in self.t_embedder.added:
            nn.init.zeros_(self.get_parameter(f"t_embedder.by_group.{name}.mlp.2.weight"))
        nn.init.normal_(self.y_embedder.weight, std=0.02)
        nn.init.xavier_uniform_(self.x_embedder.weight.flatten(1))
        assert self.x_embedder.bias is not None
        nn.init.zeros_(self.x_embedder.bias)


def _projector(width: int, hidden: int, outputs: int) -> nn.Sequential:
    """REPA's three linear layers with SiLU between."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
    )
