"""The whole chain at tiny size, and what an interruption leaves."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from children import said_at_the_end, started, wait_until
from lwd.config import load
from lwd.data import LatentShards
from lwd.data.encoded import read_manifest
from lwd.data.samples import SampleSet
from lwd.datasets.builtin import digits
from lwd.encoders.decoder import load_decoder
from lwd.schedules import Schedule
from lwd.stages import demo, train
from lwd.stages.experiment import Experiment

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"


def test_the_demo_ends_with_a_page_and_is_found_again(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    page = demo.run(CONFIG, overrides)
    text = page.read_text()
    rows = json.loads((output / "results.json").read_text())
    assert len(rows) == 2 * 2  # variants, budgets; one seed
    assert all(f"{row['variant']}" in text for row in rows)
    assert Schedule.load(output / "schedule.json").names == ("tex", "sem")
    samples = SampleSet.read(output / "samples" / "learned-seed0-8")
    assert torch.cat(list(samples.images())).shape == (20, 3, 8, 8) and bool((samples.nfe > 0).all())
    assert (output / "samples" / "learned-seed0-8" / "grid.png").stat().st_size > 1000

    def never(*_: object) -> None:
        raise AssertionError("finished work was done again")

    monkeypatch.setattr(demo.sample, "run", never)
    monkeypatch.setattr(demo.evaluate, "run", never)
    demo.run(CONFIG, overrides)
    assert json.loads((output / "results.json").read_text()) == rows


def test_encoded_digits_decode_to_the_very_images(data: Path, experiment: Experiment) -> None:
    """Standardising and back is float32 rounding (1e-6); the pixel-unshuffle itself is exact."""
    images, labels = digits("heldout")
    shards = LatentShards(data / "heldout", experiment.layout, flip=False)
    batch = shards.read(torch.arange(len(shards)))
    decoded = load_decoder(data).decode(shards.destandardise(batch.x1), experiment.layout)
    torch.testing.assert_close(decoded, images, rtol=0, atol=2e-6)
    assert torch.equal(batch.labels, labels)
    train_x1 = LatentShards(data / "train", experiment.layout, flip=False).read(torch.arange(1000)).x1
    assert train_x1.mean((0, 2, 3)).abs().max() < 0.1 and (train_x1.std((0, 2, 3)) - 1).abs().max() < 0.1
    assert read_manifest(data).splits["train"].images == len(digits("train")[1])


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_training_run_goes_on_to_the_same_weights(
    blow: signal.Signals, overrides: list[str], tmp_path: Path
) -> None:
    """A real process, stopped at an arbitrary moment; the checkpoints before it are whole and the end is the same."""
    settings = [*overrides, "train.schedule.kind=synchronous", "compute.checkpoint_every=5"]
    command = [sys.executable, "-m", "lwd", "train", "-c", str(CONFIG), *settings]
    folder = tmp_path / "run" / "train" / "learned"
    endless = [*command, "train.steps=1000000"]
    with started(endless) as process:
        wait_until(lambda: len(list(folder.glob("step-*"))) >= 2, process, every=0.005)
        process.send_signal(blow)
        err = said_at_the_end(process)
    assert process.returncode == (130 if blow == signal.SIGINT else -signal.SIGKILL)
    assert blow != signal.SIGINT or "run it again to go on" in err
    reached = max(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))
    steps = reached + 7
    settings.append(f"train.steps={steps}")
    resumed = train.run(load(Experiment, CONFIG, settings))
    assert resumed == folder / f"step-{steps:08d}"

    end = train.run(load(Experiment, CONFIG, [*settings, f"output={tmp_path / 'undisturbed'}"]))
    for name in ("model/model.safetensors", "ema/model.safetensors", "optimizer.safetensors"):
        first, second = load_file(end / name), load_file(resumed / name)
        assert all(torch.equal(first[key], second[key]) for key in first)
