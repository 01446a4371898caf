"""`lwd sample`: what it leaves, gone on with after kill -9, on several processes, and what it refuses."""

import errno
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.config import load
from lwd.data import LatentShards
from lwd.data.samples import SampleSet
from lwd.encoders.decoder import load_decoder
from lwd.encoders.texture import PixelUnshuffle
from lwd.errors import UserError
from lwd.files import checksum, remove, write_json
from lwd.models import load_model
from lwd.sample import generate
from lwd.schedules import Schedule
from lwd.stages import sample, train
from lwd.stages.experiment import Experiment
from ranks import in_two_processes

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
NUM = 20


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Checkpoints of a main and of a weak model under the offset schedule."""
    folder = tmp_path_factory.mktemp("trained")
    tiny = ["model={name: LightningDiT-Mini/1, num_classes: 10}", "compute.progress=false", f"data.path={data}"]
    steps = ["train={steps: 6, batch: 16, lr: 1e-2, ema_decay: 0.5, checkpoint_steps: [3], schedule: {kind: offset}}"]
    train.run(load(Experiment, DIGITS, [*tiny, *steps, f"output={folder}"]))
    return folder / "train" / "learned"


@pytest.fixture
def config(data, trained, tmp_path):
    def make(*more, name="a"):
        settings = [
            f"sample={{checkpoint: {trained / 'step-00000006'}, name: {name}, num: {NUM}, batch: 4, block: 8}}",
            "sample.solver=heun",
            "sample.steps=3",
            "compute.progress=false",
            "model={name: LightningDiT-Mini/1, num_classes: 10}",
            f"data.path={data}",
            f"output={tmp_path}",
        ]
        return load(Experiment, DIGITS, [*settings, *more])

    return make


def contents(folder):
    """Bytes by name; config.yaml names its own folder."""
    ignored = ("config.yaml", ".lock")
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in ignored
    }


def test_what_it_leaves(config, data, trained):
    folder = sample.run(config("sample.formats=[npz, png, latents]", "sample.trace=2", "sample.trace_points=3"))
    found = SampleSet.read(folder)
    assert len(found) == NUM and found.labels.tolist() == [i % 10 for i in range(NUM)]
    assert found.nfe.tolist() == [6 if float(n) == 6 else int(n) for n in found.nfe] and found.info.count == NUM
    images = torch.cat(list(found.images()))
    assert images.dtype == torch.uint8 and images.shape == (NUM, 3, 8, 8)

    # Once more by hand: the model, its latents, the decoder.
    experiment = config()
    model = load_model(trained / "step-00000006" / "ema").eval()
    schedule = Schedule.load(trained / "step-00000006" / "schedule.json")
    seeds = torch.arange(NUM)
    latents = generate(model, schedule, model.layout, found.labels, seeds, model.shape, solver="heun", steps=3).latents
    latents = LatentShards(data / "train", experiment.layout, flip=False).destandardise(latents)
    by_hand = ((load_decoder(data).decode(latents, experiment.layout).clamp(-1, 1) + 1) * 127.5).round()
    assert (by_hand - images.float()).abs().max() <= 1, "rounding at most: batches of another size"

    with np.load(folder / "images.npz") as theirs:
        assert theirs["arr_0"].shape == (NUM, 8, 8, 3)
        assert np.array_equal(theirs["arr_0"], images.permute(0, 2, 3, 1).numpy())
        assert theirs["arr_1"].tolist() == found.labels.tolist()
    files = sorted((folder / "images").iterdir())
    assert [f.name for f in files] == [f"{i:06d}.png" for i in range(NUM)]
    assert np.array_equal(np.stack([np.asarray(Image.open(f)) for f in files]), images.permute(0, 2, 3, 1).numpy())
    shards = sorted((folder / "latents").glob("*.safetensors"))
    assert len(shards) == 3
    assert (folder / "grid.png").stat().st_size > 500 and (folder / "trajectory.png").stat().st_size > 500
    assert not (folder / "parts").exists()


@pytest.mark.parametrize("formats", ["[png]", "[webp]", "[npz]"])
def test_every_format_holds_the_same_images(config, formats):
    whole = torch.cat(list(SampleSet.read(sample.run(config(name="npz"))).images()))
    other = SampleSet.read(sample.run(config(f"sample.formats={formats}", name="other")))
    assert torch.equal(torch.cat(list(other.images())), whole)
    assert torch.equal(torch.cat(list(other.images(torch.tensor([7, 3])))), whole[[7, 3]])


def test_kill_9_and_go_on_to_the_same_bytes(config, tmp_path):
    more = ["sample.num=120", "sample.block=5", "sample.formats=[npz, png, latents]", "sample.steps=8"]
    whole = sample.run(config(*more, name="whole"))
    chance, kills = random.Random(0), 0
    while not (tmp_path / "samples" / "killed" / "samples.json").is_file():
        pid = os.fork()
        if pid == 0:
            try:
                sample.run(config(*more, name="killed"))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)  # never back into the suite
        if kills < 8:
            time.sleep(chance.uniform(0.05, 0.4))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        kills += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or status == 0
    assert kills >= 3
    assert contents(tmp_path / "samples" / "killed") == contents(whole)


@pytest.mark.parametrize("settings", [[], ["sample.steps=4", "compute.resume=false"]], ids=["begun", "replaced"])
def test_killed_while_it_clears_the_folder_it_can_be_run_again(config, monkeypatch, settings):
    """At every removal; of a run that left no whole block, and of a whole one that is to be replaced."""
    folder = sample.run(config())
    if not settings:
        (folder / "samples.json").unlink()
    cut = 0

    def killed(path):
        nonlocal cut
        if cut == 0:
            raise KeyboardInterrupt
        cut -= 1
        remove(path)

    monkeypatch.setattr(sys.modules["lwd.stages.sample.run"], "remove", killed)
    for number in range(30):
        cut = number
        try:
            sample.run(config(*settings))
            break
        except KeyboardInterrupt:
            assert cut == 0
    assert 5 < number < 30
    assert SampleSet.read(folder).labels.shape == (NUM,)


def test_two_processes_leave_the_same_bytes(config, tmp_path):
    one = sample.run(config("sample.formats=[npz, png]", name="one"))
    in_two_processes(tmp_path / "log", sample.run, config("sample.formats=[npz, png]", name="two"))
    assert contents(tmp_path / "samples" / "two") == contents(one)


def test_finished_samples_are_found_again_and_others_are_not_overwritten(config, tmp_path):
    folder = sample.run(config())
    before = contents(folder)
    changed = (folder / "samples.json").stat().st_mtime_ns
    assert sample.run(config()) == folder and (folder / "samples.json").stat().st_mtime_ns == changed
    with pytest.raises(UserError, match=r"holds samples of other settings: sample.steps was 3, now 4; choose another"):
        sample.run(config("sample.steps=4"))
    assert contents(folder) == before
    sample.run(config("sample.steps=4", "compute.resume=false"))
    assert contents(folder) != before


def test_chosen_classes_and_none(config):
    some = SampleSet.read(sample.run(config("sample.labels=[7, 3]", name="some")))
    assert some.labels.tolist() == [7, 3] * (NUM // 2)
    null = SampleSet.read(sample.run(config("sample.labels='null'", name="none")))
    assert null.labels.tolist() == [10] * NUM
    with pytest.raises(UserError, match=r"sample.labels: class 10; the model has 0 to 9"):
        sample.run(config("sample.labels=[3, 10]"))


@pytest.mark.parametrize(
    "guidance",
    [
        "kind: classifier_free, scale: {tex: 1.5, sem: 1.2}",
        "kind: auto, weak: WEAK, scale: {first: 1, last: 2, shape: cosine}",
        "kind: both, weak: WEAK, free_scale: 2, interval: {group: sem, low: 0.2, high: 0.9}",
    ],
)
def test_every_guidance_changes_the_images(config, trained, guidance):
    settings = "sample.guidance={" + guidance.replace("WEAK", str(trained / "step-00000003")) + "}"
    plain, guided = (
        torch.cat(list(SampleSet.read(sample.run(config(*more, name=name))).images())).float()
        for name, more in (("plain", []), ("guided", [settings]))
    )
    assert not torch.equal(plain, guided)


@pytest.mark.parametrize("grid", ["arc_length", "0.3"])
def test_grids(config, grid):
    plain = SampleSet.read(sample.run(config("sample.steps=7", name="plain")))
    warped = SampleSet.read(sample.run(config("sample.steps=7", f"sample.grid={grid}", name="warped")))
    assert torch.equal(plain.nfe, warped.nfe) and plain.info.model_dump()["nfe"] == {"mean": 14, "min": 14, "max": 14}
    assert not torch.equal(torch.cat(list(plain.images())), torch.cat(list(warped.images())))


def test_guidance_that_does_not_fit(config, trained):
    weak = f"weak: {trained / 'step-00000003'}"
    for settings, complaint in (
        ("kind: auto", "AutoGuidance needs the checkpoint folder"),
        ("kind: auto, weak: nowhere", "nowhere: no such checkpoint folder"),
        (f"kind: auto, {weak}, scale: {{tex: 2}}", "must name each of the groups"),
        (f"kind: auto, {weak}, interval: {{group: x}}", "there is no group 'x'"),
    ):
        with pytest.raises(UserError, match=complaint) as error:
            sample.run(config("sample.guidance={" + settings + "}"))
        assert "\n" not in str(error.value)
    sample.run(config())  # a refused run leaves nothing in the way


@pytest.mark.parametrize("name", ["../data", "/tmp/x", "a/b", "..", ".hidden", "two\nlines", ""])
def test_a_name_is_one_folder(config, name):
    with pytest.raises(UserError, match="is not the name of one folder"):
        load(Experiment, DIGITS, [f"sample.name={name!r}" if "\n" not in name else 'sample.name="two\\nlines"'])


def test_other_files_are_neither_removed_nor_mixed_with_samples(config, tmp_path):
    other = tmp_path / "samples" / "a"
    other.mkdir(parents=True)
    (other / "recipe.json").write_text("{}")
    for more in ([], ["compute.resume=false"]):
        with pytest.raises(UserError, match="holds other files than samples"):
            sample.run(config(*more))
    assert [p.name for p in other.iterdir() if p.name != ".lock"] == ["recipe.json"]
    folder = sample.run(config(name="mine"))
    (folder / "notes.txt").write_text("kept")
    sample.run(config("sample.steps=4", "compute.resume=false", name="mine"))
    assert (folder / "notes.txt").read_text() == "kept"


def test_a_damaged_part_is_made_again(config, tmp_path, monkeypatch):
    whole = contents(sample.run(config(name="whole")))
    monkeypatch.setattr(sys.modules["lwd.stages.sample.run"], "_finish", lambda *_: pytest.fail("stopped here"))
    with pytest.raises(pytest.fail.Exception):
        sample.run(config())
    part = tmp_path / "samples" / "a" / "parts" / "000001.safetensors"
    part.write_bytes(part.read_bytes()[:100])
    monkeypatch.undo()
    assert contents(sample.run(config())) == whole


def test_what_a_kill_at_the_very_end_leaves(config):
    folder = sample.run(config())
    (folder / "parts").mkdir()
    sample.run(config())
    assert not (folder / "parts").exists()
    (folder / "images.npz").unlink()
    with pytest.raises(UserError, match=r"images.npz: missing; make the samples again with compute.resume=false"):
        sample.run(config())


def test_a_full_disk_is_told_with_the_folder(config, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lwd.stages.sample.blocks.save_tensors", full)
    with pytest.raises(UserError, match=r"samples/a: block 0 could not be written \(No space left on device\)"):
        sample.run(config())


def test_bf16(config):
    """Another arithmetic, nearly the same images: bf16 has 8 bits, so within a few percent of the range."""
    exact, rounded = (
        torch.cat(list(SampleSet.read(sample.run(config(f"compute.precision={p}", name=f"p-{p}"))).images())).float()
        for p in ("no", "bf16")
    )
    assert (exact - rounded).abs().max() > 0 and (exact - rounded).abs().mean() < 4


def broken(trained, tmp_path):
    copy = tmp_path / "broken"
    shutil.copytree(trained / "step-00000006", copy)
    return copy


@pytest.mark.parametrize("killed_at", ["replace", "run files"])
def test_killed_while_it_begins(config, tmp_path, monkeypatch, killed_at):
    """Before anything else lies there: the folder is still its own."""
    folder = tmp_path / "samples" / "a"
    if killed_at == "replace":
        folder.mkdir(parents=True)
        (folder / ".sampling.json.123.tmp").write_text('{"sample": ')
    else:

        def kill(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(sys.modules["lwd.stages.sample.run"], "write_run_files", kill)
            sample.run(config(name="a"))
        assert (folder / "sampling.json").is_file()
    assert SampleSet.read(sample.run(config(name="a"))).info.count == NUM
    assert (folder / "config.yaml").is_file() and not list(folder.glob(".*.tmp"))


def vouch(checkpoint):
    """Give the files that are there the checksums of what was written."""
    state = json.loads((checkpoint / "state.json").read_text())
    state["sha256"] = {name: checksum(checkpoint / name) for name in state["sha256"]}
    del state["checksum"]
    write_json(checkpoint / "state.json", state)


def test_a_schedule_that_is_not_the_trained_one(config, trained, tmp_path):
    copy = broken(trained, tmp_path)
    Schedule.synchronous(["tex", "sem"]).save(copy / "schedule.json")
    vouch(copy)
    with pytest.raises(UserError, match=r"broken: trained under schedule \w+, its schedule.json is \w+"):
        sample.run(config(f"sample.checkpoint={copy}"))
    weak = f"sample.guidance={{kind: auto, weak: {copy}}}"
    with pytest.raises(UserError, match="broken: trained under schedule"):
        sample.run(config(weak))
    assert not (tmp_path / "samples").exists()


def test_a_weak_model_that_is_not_asked_for_need_not_be_there(config, tmp_path):
    """As in `lwd sample --config xl.yaml sample.guidance.kind=none`, whose file names a weak model."""
    absent = tmp_path / "absent"
    folder = sample.run(config(f"sample.guidance={{kind: none, weak: {absent}}}"))
    assert SampleSet.read(folder).info.count == NUM
    with pytest.raises(UserError, match="absent: no such checkpoint folder"):
        sample.run(config(f"sample.guidance={{kind: auto, weak: {absent}}}", name="b"))


def test_weights_that_are_not_finite(config, trained, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = broken(trained, tmp_path)
    path = copy / "ema" / "model.safetensors"
    weights = load_file(path)
    save_file({key: torch.full_like(value, float("nan")) for key, value in weights.items()}, path)
    vouch(copy)
    with pytest.raises(UserError, match="finite") as error:
        sample.run(config(f"sample.checkpoint={copy}"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "samples" / "a" / "samples.json").exists()


def test_pixels_that_are_not_finite_are_no_black_pictures(config, tmp_path, monkeypatch):
    """Of a block of eight two are spoilt: it is not written, the one before is kept, and the same command goes on."""
    decode = PixelUnshuffle.decode

    def spoilt(self, latents):
        images = decode(self, latents)
        if spoilt.calls == 1:
            images[2, 0, 3, 3], images[5] = float("inf"), float("nan")
        spoilt.calls += 1
        return images

    spoilt.calls = 0
    settings = config("sample.formats=[png, latents]").model_dump(mode="json")
    write_json(tmp_path / "config.yaml", settings)
    with monkeypatch.context() as patched:
        patched.setattr(PixelUnshuffle, "decode", spoilt)
        result = CliRunner().invoke(app, ["sample", "-c", str(tmp_path / "config.yaml")])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "lwd: images 10, 13: decoded to values that are not finite" in result.stderr
    folder = tmp_path / "samples" / "a"
    assert sorted(int(p.stem) for p in folder.rglob("*.png")) == list(range(8))
    assert len(list((folder / "latents").glob("*.safetensors"))) == 1 and not list(folder.rglob(".*.tmp"))
    assert len(SampleSet.read(sample.run(config("sample.formats=[png, latents]")))) == NUM


def test_data_without_a_manifest_needs_a_decoder(config, trained, data, tmp_path):
    converted = broken(trained, tmp_path)
    (converted / "state.json").unlink()
    bare = tmp_path / "bare"
    shutil.copytree(data, bare)
    (bare / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no manifest.json, so no decoder is known; set sample.decoder.path"):
        sample.run(config(f"data.path={bare}", f"sample.checkpoint={converted}"))
    with pytest.raises(UserError, match=r"sample.decoder.group: 'x' is not one of"):
        sample.run(config(f"data.path={bare}", f"sample.checkpoint={converted}", "sample.decoder={group: x, path: y}"))
    five = diffusers.AutoencoderTiny(
        latent_channels=5, encoder_block_out_channels=[8] * 4, decoder_block_out_channels=[8] * 4
    )
    five.save_pretrained(tmp_path / "five")
    decoder = f"sample.decoder={{path: {tmp_path / 'five'}}}"
    with pytest.raises(UserError, match=r"sample.decoder.group: 0 groups have the VAE's 5 channels; name one"):
        sample.run(config(f"data.path={bare}", f"sample.checkpoint={converted}", decoder))


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("sample.formats=[]", "must name at least one"),
        ("sample.formats=[png, webp]", "exclude each other"),
        ("sample.labels=[]", "name at least one class"),
    ],
)
def test_settings_that_make_no_sense(config, setting, complaint):
    with pytest.raises(UserError, match=complaint):
        config(setting)
