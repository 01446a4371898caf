"""What a network's backward pass keeps of the forward pass, measured without weights: on fake tensors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.flow import cosine_direction_loss, flow_loss, repa_loss
from lwd.groups import Layout
from lwd.models import ModelConfig
from lwd.models.settings import is_own
from lwd.models.sizes import parse_name

MEASURED_FOR_REAL = 100_000_000
"""Up to so many parameters, a network that cannot be run on fake tensors is run for real."""

Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Kept:
    """Bytes of one step's forward pass that wait for its backward pass.

    ``per_image``: with each image; ``fixed``: however many there are, as the weights' copies under autocast;
    ``largest``: of the largest single tensor, with each image.
    """

    per_image: int
    fixed: int
    largest: int

    def along(self, deeper: Kept, steps: int) -> Kept:
        """The same ``steps`` times as much deeper as ``deeper`` is than this."""
        each, fixed = deeper.per_image - self.per_image, deeper.fixed - self.fixed
        return Kept(self.per_image + steps * each, self.fixed + steps * fixed, self.largest)


def kept(
    model: ModelConfig,
    layout: Layout,
    shape: tuple[int, ...],
    feature_dim: int | None = None,
    bf16: bool = False,
    checkpointed: bool = False,
    change: Callable[[nn.Module], None] = lambda network: None,
) -> Kept | None:
    """What the backward pass of training ``model`` keeps; None where it cannot be measured without a run.

    Counts the storages that autograd saves (`torch.autograd.graph.saved_tensors_hooks`), each once, parameters not at
    all, of two images and of three; of LightningDiT with two depths, along which the rest is linear. Not compiled:
    compiled blocks keep less. ``checkpointed``: with ``checkpoint_blocks`` set; ``change`` is done to the network first
    (freezing). Raises UserError for a network that cannot be built.
    """

    def of(settings: ModelConfig) -> Kept | None:
        def build() -> nn.Module:
            network = settings.build(layout, shape, feature_dim)
            change(network)
            if checkpointed:
                network.checkpoint_blocks = True  # type: ignore[assignment]
            return network

        return _of_network(build, layout, shape, settings.num_classes, feature_dim, bf16)

    if is_own(model.name):
        return of(model)
    depth = model.depth or parse_name(model.name)[0].depth
    shallow = max(2, model.repa_block if feature_dim is not None else 1)
    if depth <= shallow + 1:
        return of(model)
    first, second = (of(model.model_copy(update={"depth": n})) for n in (shallow, shallow + 1))
    return None if first is None or second is None else first.along(second, depth - shallow)


def _of_network(
    build: Build, layout: Layout, shape: tuple[int, ...], classes: int, feature_dim: int | None, bf16: bool
) -> Kept | None:
    """Two images and three, on fake tensors, else for real where the network is small."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import, and few stages need it

    def measure() -> Kept:
        network = build()
        # Not of one image: of a batch of one, some copies are views.
        two, three = (_saved(network, layout, shape, classes, feature_dim, bf16, images) for images in (2, 3))
        each = sum(three) - sum(two)
        largest = max((b - a for a, b in zip(two, three, strict=False)), default=0)
        return Kept(each, max(0, sum(two) - 2 * each), largest)

    with torch.random.fork_rng(devices=[]):
        with suppress(Exception), FakeTensorMode(allow_non_fake_inputs=True):
            return measure()
        try:  # not every network runs on fake tensors
            with torch.device("meta"):
                size = sum(p.numel() for p in build().parameters())
            return measure() if size <= MEASURED_FOR_REAL else None
        except UserError:
            raise
        except Exception:  # noqa: BLE001 - nor on zeros; nothing but a number depends on it
            return None


def _saved(
    network: nn.Module,
    layout: Layout,
    shape: tuple[int, ...],
    classes: int,
    feature_dim: int | None,
    bf16: bool,
    images: int,
) -> list[int]:
    """Bytes of each storage that autograd saves in one forward pass of training with all its losses."""
    own = {_storage(t) for t in (*network.parameters(), *network.buffers())}
    saved: dict[int, Tensor] = {}  # tensors, too: a storage that is freed would give its number to another

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            saved.setdefault(_storage(tensor), tensor)
        return tensor

    groups = len(layout.names)
    z, times = torch.zeros(images, layout.channels, *shape), torch.full((images, groups), 0.5)
    labels = torch.zeros(images, dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, _same),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        out = network(z, times, labels) if feature_dim is None else network(z, times, labels, project=True)
        v, projected = out if isinstance(out, tuple) else (out, None)
        loss = flow_loss(v, z, torch.ones_like(times), layout)[0] + cosine_direction_loss(v, z, layout)
        if projected is not None:
            loss = loss + repa_loss(projected, projected.detach().transpose(1, 2).float())
    del loss
    return [tensor.untyped_storage().nbytes() for tensor in saved.values()]


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _same(tensor: Any) -> Any:
    return tensor
