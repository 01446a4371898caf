"""`lwd plan`: what an experiment will take of memory, disk, hours and money, before anything is done."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from lwd.errors import UserError
from lwd.models.flops import BACKWARD
from lwd.planning import LEAST_STEP_S, MFU, Card, Count, Estimate, Memory, Rate, card_of, rate_of, seconds, shortage
from lwd.stages.experiment import Experiment
from lwd.stages.plan.disk import Disk, disk_of
from lwd.stages.plan.facts import Data, data_of
from lwd.stages.plan.work import Work, work_of
from lwd.stages.probe.run import trained as probed
from lwd.stages.train.estimate import trained


@dataclass(frozen=True)
class Machine:
    """What the plan is for: ``gpus`` cards of a kind, each with ``memory`` bytes, ``tflops`` of a rate, and of
    ``float32``, of which ``share`` is reached, at ``price`` US dollars an hour."""

    card: str
    gpus: int
    memory: float
    rate: Rate
    tflops: float
    float32: float
    share: float
    price: float


@dataclass(frozen=True)
class Hours:
    """How long a stage's work takes on all cards, and what it costs; None where its operations are not known."""

    work: Work
    hours: float | None
    cost: float | None


@dataclass(frozen=True)
class Plan:
    """What `plan` finds; ``memory`` by stage, None where a network's activations cannot be measured."""

    network: str
    count: Count
    data: Data
    machine: Machine
    forward_flops: int | None
    step_flops: int | None
    memory: dict[str, Memory | None]
    hours: list[Hours]
    disk: list[Disk]
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        out = asdict(self)
        for stage, found in self.memory.items():
            out["memory"][stage] = None if found is None else {**asdict(found), "total": found.total}
        total, cost = self.total
        return {**out, "total_hours": total, "total_cost": cost}

    @property
    def total(self) -> tuple[float, float]:
        """Hours and cost of the stages that lead from images to numbers, as far as they are known."""
        counted = [row for row in self.hours if row.work.counted]
        return sum(row.hours or 0 for row in counted), sum(row.cost or 0 for row in counted)


def machine_of(
    config: Experiment,
    card: str = "H100",
    gpus: int = 1,
    tflops: float | None = None,
    memory_gib: float | None = None,
    price: float | None = None,
    share: float | None = None,
) -> Machine:
    """A card by its name, with whatever of it is given instead. Raises UserError for an unknown one, and for numbers
    that are none of a machine."""
    share = MFU if share is None else share
    if gpus < 1 or not 0 < share <= 1:
        raise UserError(f"--gpus {gpus} must be at least 1, --mfu {share:g} above 0 and at most 1")
    known: Card = card_of(card)
    rate = rate_of(config.compute)
    given = {"--tflops": tflops, "--memory": memory_gib}
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name} {value:g} must be above 0, and finite")
    if price is not None and not 0 <= price < math.inf:
        raise UserError(f"--price {price:g} must be finite, and not negative")
    return Machine(
        known.name,
        gpus,
        2**30 * (known.memory_gib if memory_gib is None else memory_gib),
        rate,
        known.tflops[rate] if tflops is None else tflops,
        known.tflops["float32"],
        share,
        known.price if price is None else price,
    )


def plan(config: Experiment, machine: Machine, images: int | None = None) -> Plan:
    """The plan of an experiment on a machine; nothing is read of the data but the headers of its shards.

    ``images``: how many there are to be in training, where the data is not here. Raises UserError for settings that do
    not fit, and where neither shards nor encode's settings say what the latents are.
    """
    if images is not None and images < 1:
        raise UserError(f"--images {images} must be at least 1")
    data = data_of(config, images)
    main, searched = Estimate(trained(config, data.shape, data.feature_dim)), Estimate(probed(config, data.shape))
    hours = [_hours(work, machine) for work in work_of(config, data)]
    for stage, batch in (("train", config.train.batch), ("probe", config.probe.batch)):
        if batch % machine.gpus:
            raise UserError(f"{stage}.batch {batch} does not divide over {machine.gpus} cards; choose a multiple")
    estimates = {"train": main, "probe": searched}
    memory = {
        stage: estimates[stage].memory(config.compute, machine.gpus)
        for stage in ("train", "probe")
        if stage == "train" or any(row.work.stage == stage for row in hours)
    }
    warnings = [
        line
        for stage in memory
        for line in shortage(stage, estimates[stage], config.compute, machine.gpus, machine.memory)
    ]
    step, bare = (config.model.training_flops(config.layout, data.shape, d) for d in (main.trained.feature_dim, None))
    return Plan(
        network=config.model.name,
        count=main.count,
        data=data,
        machine=machine,
        forward_flops=None if bare is None else bare // (1 + BACKWARD),
        step_flops=step,
        memory=memory,
        hours=hours,
        disk=disk_of(config, data, main.count, searched.count),
        warnings=warnings,
    )


def _hours(work: Work, machine: Machine) -> Hours:
    if work.operations is None:
        return Hours(work, None, None)
    tflops = min(machine.tflops, machine.float32) if work.float32 else machine.tflops
    took = seconds(work.operations + work.again, tflops, machine.share, machine.gpus)
    hours = max(took, work.steps * LEAST_STEP_S) / 3600
    return Hours(work, hours, hours * machine.gpus * machine.price)
