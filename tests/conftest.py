"""Helper modules of this folder importable from its subfolders, and a tiny experiment on real digits, encoded once."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from lwd.config import load
from lwd.stages.encode.run import run as encode
from lwd.stages.experiment import Experiment

sys.path.insert(0, str(Path(__file__).parent))

from children import unwind_on_signals
from shared import built_once

unwind_on_signals()
# Two threads gain nothing at these sizes and lose much on a busy machine; the processes that tests start inherit it.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One more than cores, unless a number is asked for: many a test waits for a disk, or for what it started."""
    workers = yield
    return workers if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else workers + 1


DIGITS = Path(__file__).parents[1] / "configs" / "digits.yaml"

TINY = (
    "model={name: LightningDiT-Mini/1, num_classes: 10}",
    "compute.progress=false",
    "encode.encoder_steps=20",
    "encode.judge_steps=20",
    "probe={steps: 12, burn_in: 6, batch: 16, lr: 1e-3}",
    "sweep={kinetic_weights: [0.02, 0.2], processes: 1, collapsed_below: 0.0}",
    "train.steps=8",
    "train.batch=16",
    "train.ema_decay=0.5",
    "sample={num: 20, batch: 4, block: 8, trace: 2, trace_points: 3}",
    "compare.seeds=[0]",
    "compare.budgets=[4, 8]",
    "compare.processes=1",
)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded digits, with mirrored twins for the tests that want them."""

    def build(folder: Path) -> None:
        encode(load(Experiment, DIGITS, [*TINY, "data.flip=true", f"output={folder}"]))

    return built_once(tmp_path_factory, "digits", build) / "data"


@pytest.fixture
def overrides(data: Path, tmp_path: Path) -> list[str]:
    """Settings of a tiny run in its own folder, on the shared data."""
    return [*TINY, f"data.path={data}", f"output={tmp_path / 'run'}"]


@pytest.fixture
def experiment(overrides: list[str]) -> Experiment:
    """The same as a config."""
    return load(Experiment, DIGITS, overrides)
