"""One process and two (gloo), with the same global batch, take the same steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lwd.cli.main import app
from ranks import in_two_processes
from traces import computed

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
TOLERANCE = 2e-5
"""Relative. Two half-batch means in float32 round otherwise than one whole one (1e-7 a step); AdamW's first steps
divide small gradients by themselves and carry that on; 12 steps stay well under this."""


@pytest.mark.parametrize("stage", ["probe", "train", "semvae"])
def test_two_processes_take_the_same_steps_as_one(stage: str, data: Path, tmp_path: Path) -> None:
    settings = {
        "probe": ["probe={steps: 12, burn_in: 6, batch: 16, lr: 1e-3, preview_every: 5}"],
        "train": [
            "train={steps: 12, batch: 16, lr: 1e-3, heldout_every: 5, schedule: {kind: offset}}",
            "train.preview_every=5",
            "train.posthoc_ema=[0.1]",
        ],
        "semvae": ["semvae={steps: 12, batch: 16, lr: 1e-3, warmup: 4, channels: 2, eval_every: 6}", "data.flip=true"],
    }[stage]
    traces = []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        command = [
            stage, "-c", str(CONFIG), f"output={output}", f"data.path={data}",
            "model={name: LightningDiT-Mini/1, num_classes: 10}", "compute.progress=false", *settings,
        ]  # fmt: skip
        if processes == 1:
            app(command, standalone_mode=False)
        else:
            in_two_processes(tmp_path / "said", app, command)
        trace = output / {"train": "train/learned"}.get(stage, stage) / "trace.jsonl"
        if stage != "semvae":
            pictures = sorted(file.name for file in (trace.parent / "previews").iterdir())
            assert pictures == [f"step-{step:08d}.png" for step in (5, 10, 12)]
        traces.append(computed([json.loads(line) for line in trace.read_text().splitlines()]))
    one, two = traces
    assert len(one) == len(two) == 12
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert b[key] == pytest.approx(a[key], rel=TOLERANCE, abs=1e-6), (key, a["step"])
    assert one[0]["loss"] != one[-1]["loss"]
    if stage != "semvae":
        assert sum(one[-1]["loss_by_time_tex_count"]) == 12 * 16
    if stage == "train":
        assert [line["step"] for line in one if "heldout_corrected" in line] == [4, 9, 11]
