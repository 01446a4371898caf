"""Pictures of a run under way: where and when they appear, what they show, and that they change nothing."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lwd import probe, train
from lwd.data.pictures import grid
from lwd.encoders.store import load_decoder
from lwd.errors import UserError
from lwd.files import checksum
from lwd.models import load_model
from lwd.previews import SamplePreview
from lwd.report import save_probe_curves
from lwd.report.theme import COLOURS, css, stand_in
from lwd.runtime.checkpoint import find_checkpoints
from lwd.sample import generate
from lwd.schedules import PolynomialCurve, Schedule


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
    drawn = train.run(config, SamplePreview(config))
    assert names(drawn.parent / "previews") == ["step-00000003.png", "step-00000006.png", "step-00000008.png"]
    for name in ("model/model.safetensors", "ema/model.safetensors", "optimizer.safetensors"):
        assert checksum(plain / name) == checksum(drawn / name)
    with Image.open(drawn.parent / "previews" / "step-00000008.png") as picture:
        assert picture.size == (8 * (4 * 9 + 1),) * 2  # 4 x 4 digits of 8 x 8, gaps of 1, 8 times enlarged
        shown = np.asarray(picture)[4::8, 4::8]
    model, schedule = load_model(drawn / "ema").eval(), Schedule.load(drawn / "schedule.json")
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5])
    z = generate(model, schedule, model.layout, labels, torch.arange(16), 4, solver="heun", steps=20).latents
    latents = experiment.shards("train", features=False).destandardise(z)
    expected = grid(load_decoder(experiment.data_path).decode(latents, model.layout), columns=4)[0].numpy()
    assert np.abs(shown.astype(int) - expected).max() <= 1  # the average was rounded to disk and back: a grey level


def test_fewer_pictures_than_classes_are_spread_over_them(experiment, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "lwd.previews.generate",
        lambda *a, **k: asked.append(a[3]) or generate(*a, **k),
    )
    config = training(experiment, tmp_path, preview_every=8, preview_images=5)
    train.run(config, SamplePreview(config))
    assert [labels.tolist() for labels in asked] == [[0, 2, 4, 6, 8]]


def test_without_a_decoder_latents_are_shown(experiment, tmp_path):
    shutil.copytree(experiment.data_path / "train", tmp_path / "data" / "train")
    data = experiment.data.model_copy(update={"path": tmp_path / "data"})
    config = training(experiment.model_copy(update={"data": data}), tmp_path / "run", preview_every=8)
    end = train.run(config, SamplePreview(config))
    with Image.open(end.parent / "previews" / "step-00000008.png") as picture:
        assert picture.mode == "RGB"
        assert len(picture.getcolors(10**6)) > 50


def test_a_preview_that_fails_ends_the_run(experiment, tmp_path):
    (tmp_path / "train" / "learned").mkdir(parents=True)
    (tmp_path / "train" / "learned" / "previews").write_text("in the way")
    config = training(experiment, tmp_path, preview_every=3)
    with pytest.raises(OSError, match="previews"):
        train.run(config, SamplePreview(config))


@pytest.mark.parametrize("stage", ["train", "probe"])
def test_nothing_to_draw_with_is_said_at_once(experiment, tmp_path, stage):
    config = {"train": training, "probe": probing}[stage](experiment, tmp_path, preview_every=3)
    with pytest.raises(UserError, match=f"{stage}.preview_every"):
        {"train": train, "probe": probe}[stage].run(config)
    assert not list(tmp_path.iterdir())


def test_the_probe_draws_and_is_the_same_as_without(experiment, tmp_path):
    seen = {}

    def preview(path, present, averaged, earlier):
        rho = [s["tex"].rho.tolist() for s in earlier]
        seen[path.name] = (present["tex"].rho.tolist(), averaged and averaged["tex"].rho.tolist(), rho)
        save_probe_curves(path, present, averaged, earlier)

    plain = probe.run(probing(experiment, tmp_path / "plain"))
    drawn = probe.run(probing(experiment, tmp_path / "drawn", preview_every=4), preview=preview)
    assert plain.hash() == drawn.hash()
    assert names(tmp_path / "drawn/probe/previews") == list(seen) == [f"step-{s:08d}.png" for s in (4, 8, 12)]
    first, second, third = seen.values()
    assert first[1] is None and third[1] == drawn["tex"].rho.tolist()
    assert third[2] == [first[0], second[0]] and first[0] != second[0]


def test_a_resumed_probe_remembers_earlier_curves(experiment, tmp_path):
    compute = experiment.compute.model_copy(update={"checkpoint_every": 5})
    config = probing(experiment, tmp_path, preview_every=2).model_copy(update={"compute": compute})
    drawn = {}

    def preview(path, present, averaged, earlier):
        drawn.setdefault(path.name, []).append([present, *earlier])
        path.parent.mkdir(exist_ok=True)
        path.touch()
        if path.name == "step-00000006.png" and len(drawn[path.name]) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe.run(config, preview=preview)
    assert list(find_checkpoints(tmp_path / "probe")) == [5]
    probe.run(config, preview=preview)
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
