"""Trainings one after the other in one launch, each given as a config's overrides; a script for torchrun.

A job may start from a ``copy`` of another run's checkpoint, and may have one step spoilt on one process: its loss made
NaN (``spoil_loss: [step, rank]``), or one entry of that process's share of the gradient (``spoil_share``).
What share of each sharded network a process holds goes to OUTPUT/shares-RANK.json.
"""

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import distributed

from lwd.config import load
from lwd.runtime import placement
from lwd.runtime.sharding import local
from lwd.stages import probe, train
from lwd.stages.experiment import Experiment
from lwd.stages.train.run import DenoiserObjective
from lwd.training.guard import Guard

STAGES = {"train": train.run, "probe": probe.run}
FORWARD, INSPECT, SHARD = DenoiserObjective.forward, Guard.inspect, placement.shard


def spoilt_loss(where):
    def forward(self, batch, step):
        loss, metrics = FORWARD(self, batch, step)
        return loss * torch.nan if [step, distributed.get_rank()] == where else loss, metrics

    return forward


def spoilt_share(where):
    step = -1

    def inspect(self):
        nonlocal step
        step += 1
        if [step, distributed.get_rank()] == where:
            share = max((local(p.grad) for p in self._parameters), key=torch.Tensor.numel)
            share.view(-1)[-1] = torch.nan
        return INSPECT(self)

    return inspect


def run(job):
    config = load(Experiment, Path(job["config"]), job["overrides"])
    if "copy" in job and distributed.get_rank() == 0:
        shutil.copytree(*job["copy"])
    if "copy" in job:
        distributed.barrier()
    shares = []

    def counted(model, blocks, device):
        SHARD(model, blocks, device)
        sizes = [(local(p).numel(), p.numel()) for p in model.parameters()]
        shares.append(sum(here for here, _ in sizes) / sum(all_ for _, all_ in sizes))

    quick = partial(torch.compile, backend="eager")  # the graph is what matters here, not its speed
    with (
        patch.object(torch, "compile", quick),
        patch.object(placement, "shard", counted),
        patch.object(DenoiserObjective, "forward", spoilt_loss(job.get("spoil_loss"))),
        patch.object(Guard, "inspect", spoilt_share(job.get("spoil_share"))),
    ):
        STAGES[job["stage"]](config)
    (config.output / f"shares-{distributed.get_rank()}.json").write_text(json.dumps(shares))


def run_all(jobs):
    for job in jobs:
        run(job)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_all(json.loads(Path(sys.argv[1]).read_text()))
