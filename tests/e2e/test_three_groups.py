"""Three groups, an image, semantics and depth, through every command: real digits whose depth is made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn import functional as F

from lwd.data import write_shard, write_stats
from lwd.data.encoded import JUDGE, MANIFEST, read_manifest
from lwd.files import write_json
from lwd.groups import Group, Layout
from lwd.models import LightningDiT
from lwd.schedules import Schedule

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
LAYOUT = Layout([Group("tex", 4), Group("depth", 1, 2.0), Group("sem", 2, 2.0)])
COUNTS = {"train": 300, "heldout": 100}


def add_depth(data: Path, target: Path) -> None:
    """The first of the encoded digits once more, with the mean of 2 x 2 pixels as a third group."""
    for split, count in COUNTS.items():
        stored = load_file(sorted((data / split).glob("*.safetensors"))[0])
        tex = stored["latents"][:count]
        latents = {"tex": tex, "depth": 7 * tex.mean(1, keepdim=True), "sem": stored["latents_sv"][:count]}
        write_shard(
            target / split / "0.safetensors",
            LAYOUT,
            latents,
            stored["labels"][:count],
            features=stored["feats_dino"][:count],
        )
        write_stats(target / split, LAYOUT)
    write_json(target / MANIFEST, read_manifest(data).model_dump() | {"splits": {}, "fingerprint": "three groups"})
    shutil.copy(data / JUDGE, target / JUDGE)


@pytest.fixture
def settings(data: Path, overrides: list[str], tmp_path: Path) -> list[str]:
    add_depth(data, tmp_path / "data")
    groups = yaml.safe_dump(LAYOUT.to_list(), default_flow_style=True, width=10**6).strip()
    more = (
        f"data.path={tmp_path / 'data'}",
        f"groups={groups}",
        "train.heldout_every=8",
        "train.preview_every=8",
        "train.preview_images=4",
        "sample.formats=[npz, latents]",
        "sample.solver=heun",
        "sample.steps=4",
    )
    return [*overrides, *more]


def test_every_command(settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lwd.cli.main import main

    def lwd(*arguments: object) -> None:
        monkeypatch.setattr("sys.argv", ["lwd", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert not exit_.value.code, arguments

    def stage(name: str, *more: str) -> None:
        lwd(name, "-c", CONFIG, *settings, *more)

    output = tmp_path / "run"
    lwd("data", "check", tmp_path / "data")
    stage("probe")
    assert Schedule.load(output / "probe" / "schedule.json").learned == ("tex", "depth")
    stage("sweep")
    schedule = Schedule.load(output / "schedule.json")
    assert schedule.names == LAYOUT.names and schedule.learned == ("tex", "depth")
    rows = json.loads((output / "sweep" / "table.json").read_text())["rows"]
    assert all(set(row["curve"]) == {"tex", "depth"} for row in rows)
    stage("train")
    end = output / "train" / "learned" / "step-00000008"
    assert LightningDiT.from_pretrained(end / "ema").layout == LAYOUT
    assert (end.parent / "previews" / "step-00000008.png").is_file()
    stage("sample")
    folder = output / "samples" / "learned-step-00000008"
    kept = [load_file(path) for path in sorted((folder / "latents").glob("*.safetensors"))]
    assert {key: tuple(each.shape[1:]) for key, each in kept[0].items()} == {
        "latents": (4, 4, 4), "latents_depth": (1, 4, 4), "latents_sv": (2, 4, 4), "labels": (),
    }  # fmt: skip
    drawn = F.pixel_shuffle(torch.cat([each["latents"] for each in kept]), 2)  # of the one group that is decoded
    with np.load(folder / "images.npz") as file:
        images = torch.from_numpy(file["arr_0"])[..., 0]
    assert (images - (drawn[:, 0].clamp(-1, 1) + 1) * 127.5).abs().max() <= 0.5 + 1e-3  # rounded to 8 bits
    stage("evaluate")
    assert set(json.loads((folder / "evaluation.json").read_text())["metrics"]) == {
        "frechet",
        "frechet_real",
        "accuracy",
    }
    stage("report")
    page = (output / "report.html").read_text()
    assert all(word in page for word in ("tex", "depth (1 channel)", "sem"))
    lwd("export", end, tmp_path / "exported")
    stage("sample", f"sample.checkpoint={tmp_path / 'exported'}", "sample.name=exported", "sample.num=2")
    assert (output / "samples" / "exported" / "images.npz").is_file()
