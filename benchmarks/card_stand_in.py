"""A stand-in for a CUDA card, for following a step where there is none: it has memory of no content and no clock.

Within a `StandIn` tensors on the device "cuda" are fake: they know shape, type and device, and autograd, autocast and
fused optimisers take them. Tensors on the CPU stay real, so that what the host decides it decides as ever. What would
make the host wait for a card is written down, and the host goes on with made-up numbers.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import card_guard  # noqa: F401 - before torch
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
SHAPED = (
    aten.nonzero.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
)
"""Operations whose result has a shape that depends on values."""
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


def kind(tensor: Tensor) -> str:
    """The kind of device; to ask a fake tensor's ``device`` would be one operation more."""
    return (tensor.fake_device if isinstance(tensor, FakeTensor) else tensor.device).type


class HostWaitsError(RuntimeError):
    """The host would have waited for the card, and nothing can be made up in place of what it waits for."""


class StandIn(TorchDispatchMode):
    """Fake tensors on the device "cuda", real ones on the CPU; ``waits``: where the host would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.waits: list[str] = []
        self.operations = 0
        self._allowed = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that may wait, such as the end of a block of the log."""
        before, self._allowed = self._allowed, True
        try:
            yield
        finally:
            self._allowed = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation where its tensors are, or on the card where it makes one there."""
        if func is torch.ops.prim.device.default:
            return torch.device(args[0].fake_device)
        kwargs = dict(kwargs or {})
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_card = [x for x in tensors if kind(x) == "cuda"]
        if not on_card and str(kwargs.get("device", "cpu")).partition(":")[0] != "cuda":
            return func(*args, **kwargs)
        self.operations += 1
        if func is aten._local_scalar_dense.default:
            self._wait("reads a number")
            return torch.ones((), dtype=args[0].dtype).item()
        indices = [x for x in tree_leaves(args[1]) if x is not None] if func in INDEXED else []
        if func in SHAPED or any(x.dtype == torch.bool for x in indices):
            self._wait(f"{func}: a shape that depends on values")
            raise HostWaitsError(self.waits[-1])  # nothing can be made up here
        if any(kind(x) == "cpu" and x.ndim for x in indices):
            self._wait(f"{func} with indices on the host")
        source, to = self._copied(func, args, kwargs)
        behind = kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])
        if source is not None and to != kind(source) and not behind:
            self._wait(f"copies {tuple(source.shape)} from {kind(source)} to {to}")
        if to == "cpu" and source is not None:  # the host goes on with numbers of some kind
            if func is aten.copy_.default:
                return args[0].zero_()
            return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        with self.fake:
            out = func(*args, **kwargs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and kind(tensor) != "cuda":
                raise RuntimeError(f"{func} of tensors on the card gives one on the {kind(tensor)}")
        return out

    @staticmethod
    def _copied(func: Any, args: Any, kwargs: Any) -> tuple[Tensor | None, str]:
        """What an operation copies, and to which kind of device; None and "" for any other operation."""
        if func is aten._to_copy.default:
            return args[0], torch.device(kwargs["device"]).type if kwargs.get("device") else kind(args[0])
        if func is aten.copy_.default:
            return args[1], kind(args[0])
        return None, ""

    def _wait(self, what: str) -> None:
        if self._allowed:
            return
        frames = [f for f in traceback.extract_stack() if "/lwd/" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside lwd"
        self.waits.append(f"{where}: {what}")


class Stream:
    """A CUDA stream on which nothing runs; an event, too."""

    def __init__(self, *arguments: object) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        """Do nothing."""

    def record(self) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""


_attention = F.scaled_dot_product_attention


def attention(query: Tensor, key: Tensor, value: Tensor, *more: Any, **named: Any) -> Tensor:
    """As a card has it for plain attention in bfloat16: one kernel, that keeps no matrix of weights.

    Without one PyTorch would choose to write it out in float32.
    """
    flash = query.dtype == torch.bfloat16 and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256
    if kind(query) != "cuda" or not flash or more or named:
        return _attention(query, key, value, *more, **named)
    return aten._scaled_dot_product_flash_attention(query, key, value)[0]  # type: ignore[no-any-return]


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """A card for the block, as far as Python asks for one."""
    nothing = Stream()
    parts = {
        "Stream": Stream,
        "Event": Stream,
        "stream": lambda stream: nullcontext(),
        "current_stream": lambda device=None: nothing,
        "_lazy_init": lambda: None,
        "synchronize": lambda device=None: None,
        "is_bf16_supported": lambda *arguments: True,
        "max_memory_allocated": lambda device=None: 0,
    }
    with (
        mock.patch.multiple(torch.cuda, **parts),
        mock.patch.object(F, "scaled_dot_product_attention", attention),
        mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        mock.patch.object(FakeTensor, "record_stream", lambda tensor, stream: None),
        StandIn() as card,
    ):
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") is made on the host, then copied
        try:
            yield card
        finally:
            torch._C._set_only_lift_cpu_tensors(before)
