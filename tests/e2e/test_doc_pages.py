"""The commands of the pages run, page after page in one folder, each in this process.

They run as they stand, but for sizes on the line (`SMALLER`) and words that stand for others (`PLACES`); all else that
is small is in the configs, which are the reader's. What is not run (`ELSEWHERE`, and lines that begin with a launcher)
is still taken by the product's parsers and dry runs: `tests/test_doc_commands.py`. docs/imagenet.md has a test of its
own (`test_imagenet_dry_run.py`); docs/index.md has nothing that other pages have not, but for `lwd recipes`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from doc_pages import ROOT, Line, lines
from lwd.cli.main import app
from lwd.models import load_sfd_checkpoint
from lwd.schedules import Schedule

SMALL = """
compute: {progress: false}
encode: {dataset: digits, texture: {group: tex}, semantic: {group: sem}, encoder_steps: 20, judge_steps: 20}
train: {steps: 8, batch: 16, ema_decay: 0.5}
semvae: {depth: 1, batch: 4, warmup: 1}
map: {images: 6, points: 4, batch: 64}
score: {kinetic_weights: [0.1], nodes: 5}
sample: {num: 8, batch: 8, solver: heun, steps: 2, trace_points: 3}
evaluate: {bootstrap: 0, counts: 0}
"""
SMALLER = {
    r"step-\d{8}": "step-00000008",
    r"\b(350000|200000)$": "8",
    r"(posthoc|evaluate)_every=\d+": r"\1_every=4",
    r"samples: 2000, steps: 20": "samples: 8, steps: 2",
    r"sample.num=1000": "sample.num=40",
    r"(train|sample).steps=\d+": r"\1.steps=3",
    r"sample.batch=250": "sample.batch=20",
}
MINE = "runs/my/train/learned"
PLACES = {
    "sampling": {"FOLDER|WEAK": f"{MINE}/step-00000008"},
    "evaluate": {"CHECKPOINT": f"{MINE}/step-00000008", "OUTPUT/samples/NAME": "runs/my/samples/learned-step-00000008"},
    "watching": {"OUTPUT/train/NAME": MINE, r"^my.yaml$": "fresh.yaml"},  # without what other pages trained
    "data": {"runs/imagenet/data|DATA": "runs/digits/data"},
}
ELSEWHERE = {
    "sampling": "xl.yaml",
    "evaluate": "VIRTUAL",  # Inception's weights: docs/imagenet.md has the same line
    "plan": "xl.yaml",  # XL takes a quarter of a minute; see tests/planning
    "schedules": "infer",  # needs SFD's network; see tests/stages/test_infer_command.py
    "data": "imagenet.yaml|s3:|dinov2|pictures",  # see tests/stages/test_own_pictures.py, and test_data_at_a_url.py
    "README": "sweep",  # the search for lambda; see tests/stages/probe
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the reader has: a repository's configs, and own ones with as many classes as docs/sampling.md draws."""
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    digits = f"base: {ROOT}/configs/digits.yaml\nmodel: {{name: LightningDiT-Mini/1, num_classes: 10}}\n{SMALL}"
    Path("configs/digits.yaml").write_text(digits)
    own = digits.replace("num_classes: 10", "num_classes: 1000").replace("steps: 8", "schedule: synchronous, steps: 8")
    for name in ("my", "fresh"):
        Path(f"{name}.yaml").write_text(f"output: runs/{name}\ndata: {{path: runs/digits/data}}\n{own}")
    return tmp_path


def run(line: Line) -> str:
    """What a line prints."""
    words = list(line.words[1:])
    for pattern, instead in (PLACES.get(line.page, {}) | SMALLER).items():
        words = [re.sub(pattern, instead, word) for word in words]
    words = [found for word in words for found in (sorted(map(str, Path().glob(word))) if "*/" in word else [word])]
    if words[0] == "watch":
        words.append("--once")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{line}\n{words}\n{result.output}{result.exception!r}"
    if "fresh.yaml" in words:
        shutil.rmtree("runs/fresh")
    return result.output


def run_page(page: str) -> str:
    """What the lines of a page print."""
    plain = [line for line in lines(page) if line.words[0] == "lwd"]
    return "".join(run(line) for line in plain if not re.search(ELSEWHERE.get(page, "$^"), str(line)))


def test_the_pages_one_after_the_other(folder: Path) -> None:
    said = run_page("map")
    suggested = "train.schedule=runs/digits/score/suggested.json train.name=suggested train.times=null"
    assert f"next: lwd train -c configs/digits.yaml {suggested}\n" in said
    suggested = Schedule.load("runs/digits/score/suggested.json")
    assert Schedule.load("runs/digits/train/learned/step-00000008/schedule.json").hash() == suggested.hash()

    run_page("finetune")
    assert Path("runs/digits/train/adapted/step-00000003").is_dir()
    assert "sigma-0.08" in run_page("ema")
    run_page("sampling")
    assert len(list(Path("runs/my/samples/learned-step-00000008/images").glob("*.png"))) == 8

    for samples in Path("runs").glob("*/samples/*"):
        shutil.rmtree(samples)  # `compare` wants all of them measured
    *measure, compare = sorted(lines("evaluate"), key=lambda line: "compare" in line.words)
    for line in measure:
        if line.words[0] == "lwd" and "VIRTUAL" not in str(line):
            run(line)
    assert "runs/my/samples/learned-step-00000008" in run(compare)

    Path("my").mkdir()
    Path("my/latents").symlink_to(folder / "runs/digits/data")
    run_page("semvae")
    assert Path("runs/my/semvae/model/config.json").is_file()
    said = run_page("watching")
    assert "step" in said and f"{MINE}" in said
    assert "GiB" in run_page("plan")

    suggested.save("runs/digits/schedule.json")
    Path("points.csv").write_text("tau,t\n" + "".join(f"{n / 8},{(n / 8) ** 2}\n" for n in range(9)))
    assert "apart, at equal times of sem" in run_page("schedules")
    shutil.rmtree("models")
    shutil.copy(ROOT / "tests" / "models" / "sfd_tiny.pt", "sfd_xl.pt")
    run_page("README")
    assert load_sfd_checkpoint("back.pt") is not None
    assert "all statistics are there already" in run_page("data")
    assert "imagenet256/xl" in "".join(run(line) for line in lines("index") if line.words[:2] == ("lwd", "recipes"))
