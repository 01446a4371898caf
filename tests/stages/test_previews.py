"""Pictures of a run under way: where and when they appear, what they show, and that they change nothing."""

import copy
import errno
import json
import os
import shutil
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lwd.encoders.decoder import load_decoder
from lwd.errors import UserError
from lwd.files import checksum
from lwd.images.sheets import grid
from lwd.models import load_model
from lwd.plots.curves import save_probe_curves
from lwd.plots.theme import COLOURS, css, stand_in
from lwd.runtime.checkpoint import find_checkpoints
from lwd.sample import generate
from lwd.schedules import PolynomialCurve, Schedule
from lwd.stages import probe, train
from lwd.stages.train.preview import SamplePreview
from lwd.training import previews
from lwd.training.previews import Pictures


def training(experiment, folder, **changes):
    schedule = experiment.train.schedule.model_copy(update={"kind": "offset"})
    settings = experiment.train.model_copy(update={"schedule": schedule, **changes})
    return experiment.model_copy(update={"output": folder, "train": settings})


def probing(experiment, folder, **changes):
    settings = experiment.probe.model_copy(update=changes)
    return experiment.model_copy(update={"output": folder, "probe": settings})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_training_draws_and_is_the_same_as_without(experiment, tmp_path):
    plain = train.run(training(experiment, tmp_path / "plain"))
    config = training(experiment, tmp_path / "drawn", preview_every=3)
    drawn = train.run(config)
    assert names(drawn.parent / "previews") == ["step-00000003.png", "step-00000006.png", "step-00000008.png"]
    for name in ("model/model.safetensors", "ema/model.safetensors", "optimizer.safetensors"):
        assert checksum(plain / name) == checksum(drawn / name)
    with Image.open(drawn.parent / "previews" / "step-00000008.png") as picture:
        assert picture.size == (8 * (4 * 9 + 1),) * 2  # 4 x 4 digits of 8 x 8, gaps of 1, 8 times enlarged
        shown = np.asarray(picture)[4::8, 4::8]
    model, schedule = load_model(drawn / "ema").eval(), Schedule.load(drawn / "schedule.json")
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5])
    z = generate(model, schedule, model.layout, labels, torch.arange(16), model.shape, solver="heun", steps=20).latents
    latents = experiment.shards("train", features=False).destandardise(z)
    expected = grid(load_decoder(experiment.data_path).decode(latents, model.layout), columns=4)[0].numpy()
    assert np.abs(shown.astype(int) - expected).max() <= 1  # the average was rounded to disk and back: a grey level


def test_fewer_pictures_than_classes_are_spread_over_them(experiment, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "lwd.stages.train.preview.generate",
        lambda *a, **k: asked.append(a[3]) or generate(*a, **k),
    )
    config = training(experiment, tmp_path, preview_every=8, preview_images=5)
    train.run(config)
    assert [labels.tolist() for labels in asked] == [[0, 2, 4, 6, 8]]


def test_without_a_decoder_latents_are_shown(experiment, tmp_path):
    shutil.copytree(experiment.data_path / "train", tmp_path / "data" / "train")
    data = experiment.data.model_copy(update={"path": tmp_path / "data"})
    config = training(experiment.model_copy(update={"data": data}), tmp_path / "run", preview_every=8)
    end = train.run(config)
    with Image.open(end.parent / "previews" / "step-00000008.png") as picture:
        assert picture.mode == "RGB"
        assert len(picture.getcolors(10**6)) > 50


class DiskFull(SamplePreview):
    """There is no room for the picture of step 3."""

    def draw(self, latents, file):
        if file.name == "step-00000003.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        super().draw(latents, file)


class Diverged(SamplePreview):
    """Samples that are NaN, also where global random numbers have been drawn before it shows."""

    def sample(self, model):
        torch.rand(3)
        model = copy.deepcopy(model)
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, float("nan"))
        return super().sample(model)


class Broken(SamplePreview):
    """A decoder with a problem of its own, whose message runs over lines."""

    def draw(self, latents, file):
        raise RuntimeError("cuDNN error:\n  not supported")


@pytest.mark.parametrize(
    ("kind", "cause", "drawn"),
    [
        (DiskFull, "No space left on device", ["step-00000006.png", "step-00000008.png"]),
        (Diverged, "sample 0 (label 0, seed 0): ", []),
        (Broken, "(RuntimeError: cuDNN error: not supported)", []),
    ],
)
def test_a_preview_that_fails_is_one_line_and_the_training_the_same(
    experiment, tmp_path, capsys, monkeypatch, kind, cause, drawn
):
    plain = train.run(training(experiment, tmp_path / "plain"))
    config = training(experiment, tmp_path / "drawn", preview_every=3)
    capsys.readouterr()
    monkeypatch.setattr(sys.modules["lwd.stages.train.run"], "SamplePreview", kind)
    end = train.run(config)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(
        f"lwd: {end.parent / 'previews' / 'step-00000003.png'}: no picture ("
    )
    assert cause in said and said.count("step-00000003.png") == 1
    assert sorted(path.name for path in end.parent.glob("previews/*")) == drawn
    for name in ("model/model.safetensors", "ema/model.safetensors", "optimizer.safetensors"):
        assert checksum(plain / name) == checksum(end / name)


def test_a_probes_preview_that_fails_is_one_line_and_the_schedule_the_same(experiment, tmp_path, capsys, monkeypatch):
    plain = probe.run(probing(experiment, tmp_path / "plain"))
    capsys.readouterr()

    def preview(path, present, averaged, earlier):
        raise MemoryError("no room")

    monkeypatch.setattr("lwd.probe.task.save_probe_curves", preview)
    drawn = probe.run(probing(experiment, tmp_path / "drawn", preview_every=4))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "step-00000004.png: no picture (MemoryError: no room); the run goes on" in said
    assert plain.hash() == drawn.hash()


@pytest.mark.parametrize("stage", ["train", "probe"])
def test_a_file_in_the_way_is_found_before_the_first_step(experiment, tmp_path, stage):
    folder = tmp_path / {"train": "train/learned", "probe": "probe"}[stage]
    folder.mkdir(parents=True)
    (folder / "previews").write_text("in the way")
    config = {"train": training, "probe": probing}[stage](experiment, tmp_path, preview_every=3)
    with pytest.raises(UserError, match="previews: is no folder"):
        {"train": train, "probe": probe}[stage].run(config)
    assert names(folder) == ["previews"]


@pytest.mark.parametrize("stage", ["train", "probe"])
def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(experiment, tmp_path, monkeypatch, stage):
    def read_only(dir):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), f"{dir}/tmp")

    monkeypatch.setattr(previews.tempfile, "NamedTemporaryFile", read_only)
    config = {"train": training, "probe": probing}[stage](experiment, tmp_path, preview_every=3)
    with pytest.raises(UserError, match=r"previews: no picture can be written there \(Read-only file system\)"):
        {"train": train, "probe": probe}[stage].run(config)
    assert not list(tmp_path.rglob("trace.jsonl"))


def test_a_picture_that_cannot_be_removed_does_not_end_the_run(tmp_path, capsys):
    stuck, plain = Pictures(tmp_path).file(50), Pictures(tmp_path).file(60)
    stuck.mkdir(parents=True)
    plain.touch()
    Pictures(tmp_path).start()
    assert stuck.exists() and not plain.exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.count(str(stuck)) == 1
    assert f"{stuck}: an earlier run's, cannot be removed (" in said and "the run goes on" in said


def test_a_decoder_that_cannot_work_is_found_before_the_first_step(experiment, tmp_path):
    shutil.copytree(experiment.data_path / "train", tmp_path / "data" / "train")
    manifest = json.loads((experiment.data_path / "manifest.json").read_text())
    manifest["texture"]["group"] = "pixels"
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest))
    data = experiment.data.model_copy(update={"path": tmp_path / "data"})
    config = training(experiment.model_copy(update={"data": data}), tmp_path / "run", preview_every=8)
    with pytest.raises(UserError, match=r"train\.preview_every: .*KeyError: 'pixels'"):
        train.run(config)
    assert not (tmp_path / "run").exists()


def test_pictures_of_an_earlier_run_do_not_stay(experiment, tmp_path):
    config = training(experiment, tmp_path, preview_every=3)
    end = train.run(config)
    train.run(training(experiment, tmp_path, preview_every=3, steps=10))
    assert names(end.parent / "previews") == [f"step-{step:08d}.png" for step in (3, 6, 8, 9, 10)]
    compute = experiment.compute.model_copy(update={"resume": False})
    train.run(training(experiment, tmp_path).model_copy(update={"compute": compute}))
    assert names(end.parent / "previews") == []


@dataclass(frozen=True)
class Recording(SamplePreview):
    """A preview that notes its calls, and fails in one of them."""

    fails: str | None = None
    calls: list[str] = field(default_factory=list)

    def sample(self, model):
        return self._note("sample")

    def draw(self, latents, file):
        self._note("draw")

    def _note(self, call):
        self.calls.append(call)
        if call == self.fails:
            raise RuntimeError("failed")


@pytest.mark.parametrize("main", [True, False])
@pytest.mark.parametrize("spread", [True, False])
@pytest.mark.parametrize("fails", ["sample", "draw", None])
def test_of_several_processes(tmp_path, capsys, main, spread, fails):
    """Where the network is spread, all sample, and none goes on alone; else the main process does it all."""
    processes = SimpleNamespace(compute=SimpleNamespace(shard=spread), world=2, is_main=main)
    draw = Recording(None, 16, None, Pictures(tmp_path), processes, fails)
    ends = spread and fails == "sample"
    with pytest.raises(RuntimeError, match="failed") if ends else nullcontext():
        draw(None, 5)
    assert draw.calls == ["sample"] * (main or spread) + ["draw"] * (main and fails != "sample")
    assert capsys.readouterr().err.count("no picture") == (main and not ends and fails is not None)


def test_the_probe_draws_and_is_the_same_as_without(experiment, tmp_path, monkeypatch):
    seen = {}

    def preview(path, present, averaged, earlier):
        rho = [s["tex"].rho.tolist() for s in earlier]
        seen[path.name] = (present["tex"].rho.tolist(), averaged and averaged["tex"].rho.tolist(), rho)
        save_probe_curves(path, present, averaged, earlier)

    plain = probe.run(probing(experiment, tmp_path / "plain"))
    monkeypatch.setattr("lwd.probe.task.save_probe_curves", preview)
    drawn = probe.run(probing(experiment, tmp_path / "drawn", preview_every=4))
    assert plain.hash() == drawn.hash()
    assert names(tmp_path / "drawn/probe/previews") == list(seen) == [f"step-{s:08d}.png" for s in (4, 8, 12)]
    first, second, third = seen.values()
    assert first[1] is None and third[1] == drawn["tex"].rho.tolist()
    assert third[2] == [first[0], second[0]] and first[0] != second[0]


def test_a_resumed_probe_remembers_earlier_curves(experiment, tmp_path, monkeypatch):
    compute = experiment.compute.model_copy(update={"checkpoint_every": 5})
    config = probing(experiment, tmp_path, preview_every=2).model_copy(update={"compute": compute})
    drawn = {}

    def preview(path, present, averaged, earlier):
        drawn.setdefault(path.name, []).append([present, *earlier])
        path.parent.mkdir(exist_ok=True)
        path.touch()
        if path.name == "step-00000006.png" and len(drawn[path.name]) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("lwd.probe.task.save_probe_curves", preview)
    with pytest.raises(KeyboardInterrupt):
        probe.run(config)
    assert list(find_checkpoints(tmp_path / "probe")) == [5]
    probe.run(config)
    first, again = ([s["tex"].rho.tolist() for s in schedules] for schedules in drawn["step-00000006.png"])
    assert first == again and len(again) == 3
    assert len(drawn["step-00000012.png"][0]) == 6


def test_the_picture_is_in_the_light_colours_and_drawings_for_the_page_stay_as_they_were(tmp_path):
    curve = PolynomialCurve.from_rho(torch.tensor([0.1, 0.0, 0.5, 0.2, 1.0]))
    schedule = Schedule({"tex": curve, "sem": Schedule.synchronous(["sem"])["sem"]})
    save_probe_curves(tmp_path / "step-00000001.png", schedule, schedule, [])
    with Image.open(tmp_path / "step-00000001.png") as picture:
        found = {colour for _, colour in picture.convert("RGB").getcolors(10**6)}
    light = tuple(bytes.fromhex(COLOURS["variant2"][0][1:]))
    assert light in found and (255, 255, 255) in found
    assert stand_in("ink").startswith("#0100") and css()
