"""A stranger's folder of pictures: looked at, encoded by what is trained on the spot, trained on, sampled, measured."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.config import load
from lwd.data import LatentShards
from lwd.data.encoded import read_manifest
from lwd.encoders.decoder import load_classifier, load_decoder
from lwd.errors import UserError
from lwd.images.crop import centre_crop
from lwd.pipeline import LwdPipeline
from lwd.stages.encode.run import check, run
from lwd.stages.encode.starter import look, write_starter
from lwd.stages.experiment import Experiment
from lwd.stages.train.export import export

SIZES = ((40, 40), (50, 44), (64, 96), (41, 70), (90, 60), (48, 48))
MODES = ("L", "RGB", "RGBA", "P", "1", "I;16", "CMYK")
QUICK = (
    "compute.progress=false",
    "encode.decoders=0",
    "encode.encoder_steps=2",
    "encode.judge_steps=2",
    "encode.vae_steps=2",
)


def picture(number):
    """Of one of six sizes and seven modes."""
    width, height = SIZES[number % len(SIZES)]
    mode = MODES[number % len(MODES)]
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Forty pictures in four class folders, and beside them the same without."""
    root = tmp_path_factory.mktemp("own")
    for number in range(40):
        ending = "jpg" if number % len(MODES) == MODES.index("CMYK") else "png"
        for folder in (root / "pictures" / "abcd"[number % 4], root / "flat"):
            folder.mkdir(parents=True, exist_ok=True)
            picture(number).save(folder / f"{number:02}.{ending}")
    return root


def lwd(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout.strip().splitlines()


def test_from_a_folder_to_samples_as_the_last_lines_say(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = lwd("init", pictures / "pictures")
    assert lines[0].startswith("40 pictures, 4 classes; of 40 opened: short sides 40 to 64 pixels; modes 1 6, CMYK 5,")
    assert lines[1:] == ["wrote pictures.yaml", "next: lwd encode -c pictures.yaml"]
    small = ["model.depth=2", "train.steps=3", "train.batch=4", "train.schedule=synchronous"]
    small += ["sample.num=4", "sample.solver=euler", "sample.steps=2", *QUICK]
    words = lines[-1].removeprefix("next: lwd ").split()
    done = []
    while words[0] != "open":
        if words[0] == "sweep":
            words[0] = "train"  # its probes take their time, and have tests of their own
        done.append(words[0])
        lines = lwd(*words, *([] if len(done) > 1 else small))  # overrides are carried along
        assert lines[-1].startswith("next: ")
        words = lines[-1].removeprefix("next: ").removeprefix("lwd ").split()
    assert done == ["encode", "train", "sample", "evaluate", "report"]
    manifest = json.loads(Path("runs/pictures/data/manifest.json").read_text())
    counts = {split: facts["per_class"] for split, facts in manifest["splits"].items()}
    assert counts == {"train": 4 * [8], "heldout": 4 * [2]} and manifest["classes"] == ["a", "b", "c", "d"]
    assert manifest["texture"]["reconstruction"]["images"] == 8 and manifest["texture"]["reconstruction"]["rmse"] > 0
    assert set(manifest["judge"]) >= {"accuracy_heldout", "image_size"}
    (sampled,) = Path("runs/pictures/samples").glob("*/images.npz")
    assert np.load(sampled)["arr_0"].shape == (4, 40, 40, 3)
    measured = json.loads((sampled.parent / "evaluation.json").read_text())["metrics"]
    assert measured["frechet"] > 0 and 0 <= measured["accuracy"] <= 1
    check_pipeline(Path("runs/pictures"), tmp_path / "pipe")


def check_pipeline(run, folder):
    """The run's newest checkpoint, released with its data's VAE, as a pipeline; also after a save and a load."""
    (checkpoint,) = (run / "train" / "learned").glob("step-*")
    export(checkpoint, folder.with_name("released"))
    pipe = LwdPipeline.from_checkpoint(folder.with_name("released"))
    pipe.set_progress_bar_config(disable=True)
    call = {"class_labels": [0, 3], "seeds": [1, 2], "num_inference_steps": 2, "solver": "euler", "return_dict": False}
    (latents,) = pipe(**call, output_type="latent")
    (images,) = pipe(**call, output_type="pt")
    decoder = load_decoder(run / "data")
    plain = pipe.scheduler.destandardise(latents)
    expected = decoder.decode(plain, pipe.transformer.layout) / 2 + 0.5
    assert images.shape == (2, 3, 40, 40) and torch.equal(images, expected.clamp(0, 1))
    pipe.save_pretrained(folder)
    again = LwdPipeline.from_pretrained(folder)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(again(**call, output_type="pt")[0], images)


def test_no_classes(pictures, tmp_path):
    """Quarter turns in place of classes, and no judge."""
    file, seen = write_starter(pictures / "flat", tmp_path / "flat.yaml")
    assert not seen.labelled and seen.pictures == 40
    experiment = load(Experiment, file, [*QUICK, f"output={tmp_path}"])
    data = run(experiment)
    manifest = json.loads((data / "manifest.json").read_text())
    assert manifest["judge"] is None and manifest["splits"]["train"]["per_class"] == [32]
    assert manifest["semantic"]["learned"] == "quarter turns" and 0 <= manifest["semantic"]["accuracy_heldout"] <= 1
    with pytest.raises(UserError, match="encoded without a judge; encode labelled images"):
        load_classifier(data)
    with pytest.raises(UserError, match=r"encode.judge: a classifier tells classes apart, and the images have one"):
        check(load(Experiment, file, [*QUICK, f"output={tmp_path / 'x'}", "encode.judge=true"]))


GROUPS = "groups=[{name: tex, channels: 192}, {name: sem, channels: 3}]"


@pytest.mark.parametrize("size", [24, 40])
def test_a_downsampled_copy_leads_and_pixels_come_back(pictures, tmp_path, size):
    """The leading group is the exact mean of 8 x 8 blocks of the crop; the texture decodes to the crop itself."""
    file, _ = write_starter(pictures / "pictures", tmp_path / "own.yaml")
    more = [GROUPS, "encode.texture={group: tex, factor: 8}", "encode.semantic={group: sem, encoder: downsample}"]
    more += [f"encode.size={size}", f"output={tmp_path}", "data.flip=false"]
    experiment = load(Experiment, file, [*QUICK, *more])
    data = run(experiment)
    shard = load_file(data / "heldout" / "latents_rank00_shard0000.safetensors")
    assert "feats_dino" not in shard
    crop = torch.from_numpy(centre_crop(picture(16), size)).permute(2, 0, 1)  # a's fifth: 0, 4, 8, 12, 16
    blocks = (crop.double() / 127.5 - 1).reshape(3, size // 8, 8, size // 8, 8).mean((2, 4))
    torch.testing.assert_close(shard["latents_sv"][0].double(), blocks, rtol=0, atol=1e-6)  # sums in float32
    stacked = torch.cat([shard["latents"], shard["latents_sv"]], dim=1)
    decoded = load_decoder(data).decode(stacked, experiment.layout)[0]
    assert torch.equal(((decoded + 1) * 127.5).round().to(torch.uint8), crop)
    for wrong, message in (
        ("encode.semantic.compress=semvae", "downsample is stored as it is"),
        ("encode.repa.encoder=downsample", "has no features to align to"),
        ("groups=[{name: tex, channels: 192}, {name: sem, channels: 2}]", "'sem' has 2 channels, its encoder makes 3"),
        ("encode.heldout=x", "leave one of the two out"),
        ("encode.heldout_every=11", "no class of .* has 11 images"),
    ):
        with pytest.raises(UserError, match=message):
            check(load(Experiment, file, [*QUICK, *more, f"output={tmp_path / 'x'}", wrong]))


def test_random_vit_and_the_vaes_own_decoder(pictures, tmp_path):
    """random-vit at another grid; what the manifest's VAE decodes is what `lwd.encoders` reads back; a second run finds
    everything there."""
    file, _ = write_starter(pictures / "pictures", tmp_path / "own.yaml")
    more = ["encode.texture.factor=4", "encode.semantic.encoder=random-vit", "encode.judge=false", "encode.size=32"]
    experiment = load(Experiment, file, [*QUICK, *more, f"output={tmp_path}"])
    data = run(experiment)
    shards = LatentShards(data / "train", experiment.layout, flip=False)
    assert shards.shape == (8, 8) and not (data / "semantic.safetensors").exists()
    latents = shards.destandardise(shards.read(torch.arange(2)).x1)
    decoder = load_decoder(data)
    images = decoder.decode(latents, experiment.layout)
    assert images.shape == (2, 3, 32, 32)
    tex = load_file(data / "train" / "latents_rank00_shard0000.safetensors")["latents"][:2]
    torch.testing.assert_close(images, decoder.encoder.decode(tex), atol=1e-4, rtol=1e-4)  # through the statistics
    found = read_manifest(data).texture.reconstruction
    assert found is not None and found.split == "heldout"
    before = (data / "texture.safetensors").stat().st_mtime_ns
    assert run(experiment) == data and (data / "texture.safetensors").stat().st_mtime_ns == before


def test_what_init_refuses(pictures, tmp_path):
    def message(*arguments):
        result = CliRunner().invoke(app, ["init", *map(str, arguments)])
        assert result.exit_code == 2 and result.stderr.count("\n") == 1
        return result.stderr

    out = tmp_path / "x.yaml"
    assert "no such folder" in message(tmp_path / "nowhere", "--out", out)
    (tmp_path / "empty").mkdir()
    assert "an empty folder" in message(tmp_path / "empty", "--out", out)
    bad = tmp_path / "bad"
    bad.mkdir()
    for number in range(5):
        (bad / f"{number}.png").write_bytes(b"no picture")
    assert "none of the 5 pictures that were opened can be read" in message(bad, "--out", out)
    few = tmp_path / "few" / "a"
    few.mkdir(parents=True)
    picture(1).save(few / "1.png")
    assert "one class at least needs 4 pictures, some of them held out; found 1" in message(few.parent, "--out", out)
    picture(1).save(few.parent / "stray.png")
    assert "lies beside the class subfolders" in message(few.parent, "--out", out)
    assert not out.exists()
    out.write_text("mine")
    assert "exists already" in message(pictures / "pictures", "--out", out) and out.read_text() == "mine"


@pytest.mark.parametrize(("side", "size", "factor"), [(9, 8, 2), (17, 16, 2), (31, 24, 4), (50, 48, 8), (200, 64, 8)])
def test_the_sizes_that_init_chooses_can_be_encoded(tmp_path, side, size, factor):
    """Also with a folder's name that YAML would take for something else."""
    folder = tmp_path / "no: [x] 'é #"
    for number in range(8):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side + 3), (number, 0, 0)).save(folder / "ab"[number % 2] / f"{number}.png")
    file, seen = write_starter(folder, tmp_path / "x.yaml")
    assert look(folder) == seen and seen.per_class == {"a": 4, "b": 4}
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert (written["encode"]["size"], written["encode"]["texture"]["factor"]) == (size, factor)
    assert written["encode"]["dataset"] == str(folder)
    check(load(Experiment, file, ["compute.progress=false", f"output={tmp_path / 'run'}"]))
