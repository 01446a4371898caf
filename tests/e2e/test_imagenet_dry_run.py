"""Every command of docs/imagenet.md runs, as it stands there, on a handful of pictures; and what fails is said."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import lwd
from children import HANG_S, kill_all, started

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "imagenet256" / "dry_run.py"
ENCODE = (
    "lwd encode --config configs/imagenet256/base.yaml compute.precision=no encode.dataset=/data/imagenet/train "
    "encode.heldout=/data/imagenet/val encode.semantic.semvae=weights/semvae.pt"
)
TRAIN = "lwd train --config configs/imagenet256/xl.yaml"
OFFSET = "lwd train --config configs/imagenet256/offset.yaml"
SAMPLE = "lwd sample --config configs/imagenet256/offset.yaml"


@pytest.fixture(scope="module")
def imported() -> None:
    """What a run takes longest over, imported before it forks."""
    importlib.import_module("diffusers").AutoencoderKL  # noqa: B018 - a lazy module, imported by looking


def in_fork(folder: Path, *arguments: str) -> tuple[int, str]:
    """The script with ``--smallest``, in a copy of this process: its exit code and what it printed."""
    output = folder / "printed.txt"
    child = multiprocessing.get_context("fork").Process(target=_main, args=(output, ["--smallest", *arguments]))
    child.start()
    try:
        child.join()
    finally:
        kill_all(child.pid)
    return child.exitcode or 0, output.read_text()


def _main(output: Path, arguments: list[str]) -> None:
    for number in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115 - not pytest's
    sys.argv = [str(SCRIPT), *arguments]
    sys.path.insert(0, str(SCRIPT.parent))
    runpy.run_path(str(SCRIPT), run_name="__main__")


def page(folder: Path, *lines: str) -> list[str]:
    path = folder / "page.md"
    path.write_text("\n".join(["```bash", *lines, "```"]))
    return ["--page", str(path)]


def test_the_whole_page(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(lwd.__file__).parents[1])}
    command = [sys.executable, str(SCRIPT), "--smallest", "--keep", str(tmp_path / "here")]
    with started(command, environment=environment, stdout=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, out + err
    lines = out.splitlines()
    assert "going on from step 4" in next(lines[i + 1] for i, line in enumerate(lines) if "goes on to 200" in line)
    assert "failed" not in out and lines[-1].split(",")[1] == " all ok"
    assert (tmp_path / "here" / "runs" / "imagenet256" / "samples" / "xl-3m" / "images.npz").is_file()


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([ENCODE, f"{TRAIN}"], "lwd: runs/imagenet256/probe/schedule.json"),  # the probe is left out
        ([ENCODE, OFFSET, f"{OFFSET} seed=1"], "seed was 0, now 1"),  # another recipe in a run's folder
        (["lwd data check runs/nothing"], "runs/nothing"),
        ([f"{TRAIN} train.stepps=1"], "did you mean 'steps'?"),
        ([f"{TRAIN} train.steps=123"], "none of the budgets"),
        ([ENCODE, OFFSET, f"{SAMPLE} sample.formats=[latents]"], "images.npz"),  # runs, and leaves too little
    ],
    ids=["no schedule", "another recipe", "no data", "no such key", "no budget", "too little left"],
)
def test_the_first_failure_ends_it_with_what_was_said(tmp_path: Path, lines: list[str], complaint: str) -> None:
    code, said = in_fork(tmp_path, *page(tmp_path, *lines, "lwd data check runs/never"))
    assert code == 1
    assert said.count("\nok") == len(lines) - 1 and said.count("\nfailed") == 1 and "never" not in said
    line, _, why = said.split("\nfailed", 1)[1].partition("\n")
    assert line.endswith(lines[-1]) and complaint in why
