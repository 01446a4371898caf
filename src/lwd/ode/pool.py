"""A pool of slots through which any number of samples pass: full batches until none is left to begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.ode.plan import Plan
from lwd.ode.slots import DONE, NOT_FINITE, RUNNING, Observer, Slots

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""z (S, D), tau (S,) float64 and the samples' numbers (S,) int64 -> dz/dtau (S, D)."""

Start = Callable[[Tensor], Tensor]
"""Numbers of samples (n,) int64, on the CPU -> their states at tau = 0 (n, D), on the device."""


@dataclass(frozen=True)
class Finished:
    """Samples that left the pool: ``index`` (n,) int64 on the CPU; z (n, D) and nfe (n,) on the device."""

    index: Tensor
    z: Tensor
    nfe: Tensor


@dataclass(frozen=True)
class _Look:
    """The slots' status as of one tick, on its way to the host."""

    tick: int
    status: Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def at(cls, slots: Slots, tick: int) -> _Look:
        if not slots.status.is_cuda:
            return cls(tick, slots.status.clone(), None)
        status = torch.empty(len(slots), dtype=torch.int8, pin_memory=True)
        status.copy_(slots.status, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        return cls(tick, status, arrived)

    def read(self) -> Tensor:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.status


@torch.no_grad()
def flow_through(
    velocity: Velocity,
    start: Start,
    count: int,
    batch: int,
    plan: Plan,
    observe: Observer | None = None,
    refill: bool = True,
) -> Iterator[Finished]:
    """Integrate samples 0 .. count - 1, ``batch`` at a time; yields each as it ends.

    An ended sample's slot goes to the next one at once. When none is left to begin, the batch shrinks: on a CPU with
    every sample that ends, elsewhere by halves, so that a compiled network sees few shapes. On CUDA the host looks at
    the tick before the present one, so that the device never waits for it; a slot is then idle for one tick.
    ``refill`` False: in lockstep, the next batch begins when the last sample of this one has ended (for comparison).
    Raises UserError for a sample that is not finite or gets nowhere.
    """
    begun = tick = 0
    while begun < count:
        size = min(batch, count - begun)
        last = count if refill else begun + size
        numbers = torch.arange(begun, begun + size)  # (S,) on the host: the sample in each slot, -1 for none
        slots = Slots(plan, start(numbers).clone(), numbers.to(plan.starts.device, non_blocking=True), observe)
        entered = torch.full((size,), tick)  # (S,) on the host: a status seen at an earlier tick is another sample's
        begun += size
        queue = _Queue(start, begun, last, size)
        looks: list[_Look] = []
        while bool((numbers >= 0).any()):
            z, tau = slots.ask()
            slots.advance(z, velocity(z, tau, slots.index))
            looks.append(_Look.at(slots, tick))
            tick += 1
            if slots.z.is_cuda and len(looks) < 2:
                continue
            look = looks.pop(0)
            ended = (look.read() != RUNNING) & (numbers >= 0) & (entered <= look.tick)
            if not bool(ended.any()):
                continue
            where = ended.nonzero()[:, 0]
            _complain(look.status[where], numbers[where])
            on_device = where.to(slots.z.device, non_blocking=True)
            finished = Finished(numbers[where], slots.z[on_device], slots.nfe[on_device])
            numbers[where] = -1
            fresh = min(len(where), queue.left)
            if fresh:
                new, states = queue.take(fresh)
                slots.enter(on_device[:fresh], states, new.to(slots.z.device, non_blocking=True))
                numbers[where[:fresh]], entered[where[:fresh]] = new, tick
            yield finished
            busy = (numbers >= 0).nonzero()[:, 0]
            if 0 < (size := _shrunk(len(slots), len(busy), slots.z.is_cuda)) < len(slots):
                kept = torch.cat([busy, (numbers < 0).nonzero()[:, 0]])[:size]
                slots.keep(kept.to(slots.z.device, non_blocking=True))
                numbers, entered = numbers[kept], entered[kept]
                looks.clear()  # of other slots; the next look shows what they would have
        begun = last


class _Queue:
    """Samples that have not begun, made ``block`` at a time."""

    def __init__(self, start: Start, begin: int, end: int, block: int) -> None:
        self.start, self.next, self.end, self.block = start, begin, end, block
        self.ready: Tensor | None = None
        self.offset = 0

    @property
    def left(self) -> int:
        return self.end - self.next

    def take(self, count: int) -> tuple[Tensor, Tensor]:
        """The next ``count`` <= block samples: numbers (count,) and states (count, D)."""
        numbers = torch.arange(self.next, self.next + count)
        parts = []
        while count:
            if self.ready is None or self.offset == len(self.ready):
                self.ready = self.start(torch.arange(self.next, min(self.next + self.block, self.end)))
                self.offset = 0
            part = self.ready[self.offset : self.offset + count]
            self.offset, self.next, count = self.offset + len(part), self.next + len(part), count - len(part)
            parts.append(part)
        return numbers, torch.cat(parts)


def _shrunk(size: int, busy: int, by_halves: bool) -> int:
    """The batch size to go on with. Halves end at 2: a compiled network would be compiled once more for 1."""
    if not by_halves:
        return busy
    while 0 < busy <= size // 2 and size >= 4:
        size //= 2
    return size


def _complain(status: Tensor, numbers: Tensor) -> None:
    if bool((failed := status == NOT_FINITE).any()):
        what = "the latents are not finite; is the checkpoint a trained one, of this schedule?"
    elif bool((failed := status != DONE).any()):
        what = "dopri5 gets nowhere; raise atol and rtol, or take another solver"
    else:
        return
    raise SampleError(int(numbers[failed][0]), what)


class SampleError(UserError):
    """An error in sample ``number``; the caller knows its seed."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"sample {number}: {what}")
        self.number, self.what = number, what
