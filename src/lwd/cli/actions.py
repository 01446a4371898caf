"""What each command of a stage does with a loaded config, and the line it ends with; a check is what a dry run adds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lwd.errors import UserError

if TYPE_CHECKING:
    from lwd.stages.experiment import Experiment


def one_process_only(name: str) -> None:
    """Raise UserError under a launcher of several processes."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(f"{name}: runs on one process; start it without torchrun or accelerate launch")


def encode(experiment: Experiment) -> str:
    """Images to shards."""
    from lwd.stages.encode.run import run

    return f"wrote {run(experiment)}"


def check_encode(experiment: Experiment) -> None:
    """What cannot be encoded is refused."""
    from lwd.stages.encode.run import check

    check(experiment)


def semvae(experiment: Experiment) -> str:
    """Train the semantic VAE."""
    from lwd.stages.semvae import run

    return f"trained {run(experiment)}"


def probe(experiment: Experiment) -> str:
    """Stage I at one lambda."""
    from lwd.stages.probe import learned_table, run

    return f"{learned_table(run(experiment))}\nlearned: {experiment.output / 'probe' / 'schedule.json'}"


def check_probe(experiment: Experiment) -> None:
    """What cannot be probed is refused."""
    from lwd.stages.probe.run import check

    check(experiment)


def sweep(experiment: Experiment) -> str:
    """Stage I at several."""
    from lwd.probe.table import TABLE, read_table
    from lwd.stages.probe import on_screen, sweep
    from lwd.stages.train import main_flops

    _, schedule = sweep(experiment, main_flops(experiment))
    table = on_screen(read_table(experiment.output / "sweep" / TABLE).model_dump())
    return f"{table}\nchosen: lambda {schedule.provenance['lambda']:g} -> {experiment.output / 'schedule.json'}"


def train(experiment: Experiment) -> str:
    """Stage II."""
    from lwd.stages.train import run

    return f"trained {run(experiment)}"


def map(experiment: Experiment) -> str:
    """Measure a joint-time network."""
    from lwd.stages.map import run

    return f"wrote {run(experiment)}"


def score(experiment: Experiment) -> str:
    """Compare schedules on it."""
    from lwd.stages.score.run import on_screen, run

    one_process_only("score")
    return f"{on_screen(run(experiment)[1])}\nwrote {experiment.output / 'score'}"


def check_train(experiment: Experiment) -> None:
    """What cannot be trained is refused."""
    from lwd.stages.train.run import check

    check(experiment)


def sample(experiment: Experiment) -> str:
    """Draw samples."""
    from lwd.stages.sample import run

    return f"wrote {run(experiment)}"


def report(experiment: Experiment) -> str:
    """Draw the page."""
    from lwd.stages.report import write_page

    one_process_only("report")
    return f"wrote {write_page(experiment)}"
