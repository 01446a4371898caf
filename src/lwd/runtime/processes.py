"""This process's place among the others: its device, its rank, and what all of them do together."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from lwd.launcher import check_launcher
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.preemption import InTime, Preemption, TimeLimit
from lwd.runtime.progress import say
from lwd.runtime.sharding import divided

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER_TRIM = 2**31 - 1


class Processes:
    """The processes of one launch (one, or torchrun's), as seen from this one; ``compute`` says where they run."""

    def __init__(self, compute: ComputeConfig) -> None:
        check_launcher()
        self.compute = compute
        cpu = compute.device == "cpu" or not torch.cuda.is_available()
        AcceleratorState._reset_state()  # it is global, and refuses a second stage of another precision in one process
        # Autocast's cache would keep a bf16 copy of weights that sharding has freed, and each is used but once anyway.
        autocast = [AutocastKwargs(cache_enabled=False)] if compute.shard else []
        self._accelerator = Accelerator(
            cpu=cpu, mixed_precision=compute.precision, step_scheduler_with_optimizer=False, kwargs_handlers=autocast
        )
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.is_main: bool = self._accelerator.is_main_process
        self.dtype = torch.bfloat16 if compute.precision == "bf16" else torch.float32
        """For networks that are only evaluated, such as encoders."""
        self.limit = TimeLimit(compute.time_limit)
        """``compute.time_limit``, since this process started."""
        if self.device.type == "cpu":
            keep_freed_memory()
        torch.set_float32_matmul_precision("high" if compute.tf32 else "highest")

    @property
    def shows(self) -> bool:
        """Whether this process talks to the person at the terminal."""
        return self.is_main and self.compute.progress

    def say(self, message: str) -> None:
        """One line, from the main process."""
        say(message, self.shows)

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which networks compute in ``compute.precision``."""
        return cast(AbstractContextManager[object], self._accelerator.autocast())

    def barrier(self) -> None:
        """Wait for all processes."""
        self._accelerator.wait_for_everyone()

    def mean(self, value: Tensor) -> Tensor:
        """Average over processes, the same on each."""
        reduced: Tensor = self._accelerator.reduce(value, reduction="mean")
        return reduced

    def preemption(self) -> Preemption:
        """The block in which signals and the time limit end a loop of steps, the same on all processes."""
        return Preemption(self.mean if self.world > 1 else None, self.device, self.limit)

    def in_time(self) -> InTime:
        """What hands out pieces of work until the time limit."""
        return InTime(self.limit, self.anywhere)

    def anywhere(self, here: bool) -> bool:
        """Whether it holds on any process, the same answer on each; all must ask."""
        return bool(self.mean(torch.tensor(float(here), device=self.device)) > 0)

    def first_where(self, here: bool) -> int | None:
        """The lowest rank of the processes on which it holds, the same answer on each; None: on none. All must ask."""
        ranks = torch.zeros(self.world, device=self.device)
        ranks[self.rank] = float(here)
        found = self.mean(ranks).nonzero()
        return int(found[0]) if len(found) else None

    def gather_on_main(self, tensor: Tensor) -> list[Tensor] | None:
        """Every process's ``tensor``, of one shape and type, in the processes' order; None on all but the main one."""
        if self.world == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.world)] if self.is_main else None
        distributed.gather(tensor.contiguous(), parts, dst=0)
        return parts

    def prepare(self, module: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Both as a training loop uses them: under autocast and, where no parameter is divided, DDP."""
        if divided(module):
            module = self._accelerator.prepare_model(module, evaluation_mode=True)  # which only leaves DDP out
            return module, self._accelerator.prepare_optimizer(optimizer)
        module, optimizer = self._accelerator.prepare(module, optimizer)
        return module, optimizer

    def backward(self, loss: Tensor) -> None:
        """Gradients of ``loss``, averaged over processes unless within `no_sync`."""
        self._accelerator.backward(loss)

    def no_sync(self, module: nn.Module) -> AbstractContextManager[object]:
        """The context in which gradients of a prepared module stay on this process, to be accumulated."""
        return cast(AbstractContextManager[object], self._accelerator.no_sync(module))


def keep_freed_memory() -> None:
    """Let glibc's allocator hold on to freed blocks of any size: a training step asks for the same sizes again.

    By default it returns large blocks to the kernel at once, so that every large tensor of every step starts on fresh
    pages, each of which faults. On the CPU that costs a step of LightningDiT-S a tenth of its time. Does nothing where
    there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
