"""`lwd encode`: shards against the encoders called by hand, resumed, shared out, and with bad images."""

import csv
import json
import os
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lwd.config import load
from lwd.data import LatentShards
from lwd.data.format import shard_key
from lwd.datasets.builtin import digits
from lwd.encoders.decoder import carry, load_classifier, load_decoder
from lwd.encoders.edges import Edges
from lwd.encoders.pca import PatchPCA
from lwd.encoders.semvae import load_semvae
from lwd.encoders.small import SmallViT
from lwd.encoders.vision import load_patch_encoder, load_transformers_encoder, random_patch_encoder
from lwd.errors import UserError
from lwd.stages.encode import run as stage
from lwd.stages.encode.run import check, run
from lwd.stages.experiment import Experiment
from ranks import in_two_processes

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "configs" / "digits.yaml"
QUICK = ("compute.progress=false", "encode.encoder_steps=5", "encode.judge_steps=5", "encode.shard_images=50")


def encode(folder, *overrides, config=DIGITS):
    return run(load(Experiment, config, [*QUICK, f"output={folder}", *overrides]))


def dry_run(folder, *overrides, config=DIGITS):
    check(load(Experiment, config, [*QUICK, f"output={folder}", *overrides]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Digits, encoded without disturbance, 50 images a shard."""
    return encode(tmp_path_factory.mktemp("whole"))


def content(folder):
    """Every shard, statistic and encoder by name. The rest holds paths and versions."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".pt"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_shards_are_what_the_encoders_make(whole):
    images, labels = digits("train")
    vit, pca = SmallViT(), PatchPCA.load(whole / "pca.safetensors")
    vit.load_state_dict(load_file(whole / "semantic.safetensors"))
    files = sorted((whole / "train").glob("*.safetensors"))
    assert [len(load_file(f)["labels"]) for f in files] == 27 * [50] + [2]
    shard = load_file(files[3])
    rows = slice(150, 200)
    assert torch.equal(shard["labels"], labels[rows])
    assert set(shard) == {"latents", "latents_sv", "feats_dino", "labels"}  # flip is false: no twin is read, or stored
    by_hand = images[rows].reshape(50, 4, 2, 4, 2).permute(0, 2, 4, 1, 3).reshape(50, 4, 4, 4)
    assert torch.equal(shard["latents"], by_hand)
    with torch.no_grad():
        features = vit.patch_features(images[rows])
    # float32 through three blocks, another batch than the pipeline's; features are stored in float16.
    torch.testing.assert_close(shard["latents_sv"], pca.encode(features), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shard["feats_dino"].float(), features, rtol=1e-3, atol=1e-3)


def test_statistics_are_those_of_the_training_split(whole):
    latents = torch.cat([load_file(f)["latents_sv"] for f in sorted((whole / "train").glob("*.safetensors"))])
    for split in ("train", "heldout"):
        stats = torch.load(whole / split / "latents_sv_stats.pt", weights_only=True)
        torch.testing.assert_close(stats["mean"], latents.mean((0, 2, 3), keepdim=True), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(stats["std"], latents.std((0, 2, 3), keepdim=True, correction=0))


def test_the_manifest_counts_and_sums(whole):
    import hashlib

    manifest = json.loads((whole / "manifest.json").read_text())
    labels = digits("train")[1]
    train = manifest["splits"]["train"]
    assert train["images"] == 1352 and train["skipped"] == 0
    assert train["per_class"] == torch.bincount(labels).tolist()
    for shard in train["shards"]:
        assert hashlib.sha256((whole / "train" / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]
    assert len(train["shards"]) == 28 and not list(whole.rglob("shard*.json"))
    assert manifest["judge"]["classes"] == 10 and load_classifier(whole)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(whole, tmp_path):
    """kill -9 while shards are being written, twice; small batches so that there is something to interrupt."""
    folder = tmp_path / "data"
    for at_least in (3, 12):
        process = get_context("fork").Process(target=encode, args=(tmp_path,))
        process.start()
        while len(list(folder.glob("*/*shard*.json"))) < at_least and process.is_alive():
            time.sleep(0.002)
        process.kill()
        process.join()
        if (folder / "manifest.json").exists():
            pytest.skip("the machine encoded everything before it could be killed")
    with pytest.raises(UserError, match="missing"):
        LatentShards(folder / "train", load(Experiment, DIGITS).layout, flip=False)
    (folder / "train" / ".latents_rank00_shard0027.safetensors.1.tmp").write_bytes(b"cut short")
    assert encode(tmp_path) == folder
    assert content(folder) == content(whole) and not list(folder.rglob(".*.tmp"))


def test_two_processes_write_the_same_shards(whole, tmp_path):
    in_two_processes(tmp_path / "log", encode, tmp_path)
    assert content(tmp_path / "data") == content(whole)


def test_what_is_there_is_left_alone(whole, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    assert encode(whole.parent) == whole
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before
    with pytest.raises(UserError, match="encoded with other settings or images"):
        encode(whole.parent, "seed=1")
    with pytest.raises(UserError, match=r"encoded without mirrored twins; set data\.flip=false"):
        encode(whole.parent, "data.flip=true")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        encode(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("groups=[{name: tex, channels: 5}, {name: sem, channels: 2}]", "'tex' has 5 channels, its encoder makes 4"),
        ("groups=[{name: tex, channels: 4}, {name: sem, channels: 65}]", "PCA to 65 channels"),
        ("encode.texture={group: tex, factor: 4}", "'tex' has 4 channels, its encoder makes 16"),
        ("encode.texture={group: tex, factor: 3}", "do not take images of"),
        ("groups=[{name: tex, channels: 16}, {name: sem, channels: 2}]", "'tex' has 16 channels, its encoder makes 4"),
        ("encode.texture={group: image}", "texture.group 'image'"),
        ("encode.dataset=digit", "unknown data set 'digit'; did you mean 'digits'"),
        ("encode.heldout=/tmp", "digits has held-out images of its own"),
        ("encode.dataset=/nowhere/at/all", "/nowhere/at/all"),
        ("encode.semantic={group: sem, compress: semvae}", "encode.semantic.semvae"),
        ("encode.semantic={group: sem, encoder: dino}", "encode.semantic.encoder: unknown encoder 'dino'"),
        ("encode.semantic={group: sem, encoder: transformers}", "encode.semantic.path: name the model's folder"),
        ("encode.semantic={group: sem, encoder: transformers, path: /no/where}", "/no/where: no such folder"),
        ("encode.semantic={group: sem, layer: 2}", "encode.semantic.layer: small-vit has no use for it"),
        ("encode.repa={resolution: 224}", "encode.repa.resolution: semantic has no use for it"),
    ],
)
def test_settings_that_do_not_fit_give_one_line(tmp_path, override, message):
    for attempt in (encode, dry_run):
        with pytest.raises(UserError, match=message) as error:
            attempt(tmp_path, override)
        assert "\n" not in str(error.value)
        assert not list(tmp_path.rglob("*.*"))  # said before any work: nothing is trained, fitted or written


def test_a_factor_that_the_small_vit_cannot_follow_is_said_before_any_work(tmp_path):
    groups = "groups=[{name: tex, channels: 1}, {name: sem, channels: 2}]"
    for attempt in (encode, dry_run):
        with pytest.raises(UserError, match="do not take images of 8 pixels by 1; choose an even"):
            attempt(tmp_path, groups, "encode.texture={group: tex, factor: 1}")
        assert not list(tmp_path.rglob("*.*"))


def test_a_dry_run_that_passes_writes_nothing(tmp_path):
    dry_run(tmp_path)
    assert not list(tmp_path.rglob("*.*"))


def test_a_failed_try_does_not_stand_in_the_way(tmp_path):
    with pytest.raises(UserError):
        encode(tmp_path, "encode.texture={group: tex, factor: 1}")
    assert len(LatentShards(encode(tmp_path) / "train", load(Experiment, DIGITS).layout, flip=False)) == 1352


PHOTOS = """
groups: [{name: tex, channels: 768}, {name: sem, channels: 3}]
leader: sem
data: {flip: true}
encode:
  dataset: DATASET
  texture: {group: tex, encoder: identity, factor: 16}
  semantic: {group: sem, encoder: dinov2-s, path: WEIGHTS, compress: pca}
  batch: 2
  shard_images: 4
  decoders: 1
"""


def tiny_dino(folder):
    """A DINOv2 of two narrow blocks with random weights."""
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).eval()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Nine pictures of three classes, one cut short; DINOv2-S with random weights; a config."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(9):
        path = folder / "images" / "abc"[i // 3] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        coarse.resize((300 + 10 * i, 280), Image.Resampling.BICUBIC).save(path, quality=90)
    bad = folder / "images" / "b" / "4.jpg"
    bad.write_bytes(bad.read_bytes()[:2000])
    random_patch_encoder("dinov2-s").model.save_pretrained(folder / "dino")
    config = folder / "photos.yaml"
    text = PHOTOS.replace("DATASET", str(folder / "images")).replace("WEIGHTS", str(folder / "dino"))
    config.write_text(text)
    return folder, config


def test_images_on_disk_with_a_bad_one(photos, tmp_path):
    folder, config = photos
    settings = [f"output={tmp_path}", "compute.progress=false"]
    with pytest.raises(UserError, match=r"train: b/4.jpg: .*listed.*unreadable.csv; encode.on_error=skip"):
        run(load(Experiment, config, settings))
    report = tmp_path / "data" / "unreadable.csv"
    assert list(csv.reader(report.open()))[1][:2] == ["train", "b/4.jpg"]
    # The same folder, gone on with: what was encoded before the bad image is kept.
    kept = (tmp_path / "data" / "train" / "latents_rank00_shard0000.safetensors").stat().st_mtime_ns
    data = run(load(Experiment, config, [*settings, "encode.on_error=skip"]))
    files = sorted((data / "train").glob("*.safetensors"))
    assert files[0].stat().st_mtime_ns == kept
    assert [len(load_file(f)["labels"]) for f in files] == [4, 3, 1]
    assert len(list(csv.reader(report.open()))) == 2
    manifest = json.loads((data / "manifest.json").read_text())
    assert manifest["classes"] == ["a", "b", "c"] and manifest["splits"]["train"]["per_class"] == [3, 2, 3]
    assert manifest["splits"]["train"]["skipped"] == 1 and len(manifest["semantic"]["weights_sha256"]) == 64

    layout = load(Experiment, config).layout
    shards = LatentShards(data / "train", layout, flip=False)
    assert shards.labels().tolist() == [0, 0, 0, 1, 1, 2, 2, 2] and shards.feature_dim == 384
    # The texture decodes to the crop that Pillow makes: 280 pixels high, so 256/280 of the size, cut from the middle.
    image = Image.open(folder / "images" / "c" / "7.jpg").convert("RGB")
    resized = np.array(image.resize((round(370 * 256 / 280), 256), Image.Resampling.BICUBIC))
    left = (resized.shape[1] - 256) // 2
    expected = torch.from_numpy(resized[:, left : left + 256].copy()).permute(2, 0, 1)
    tex = load_file(files[1])["latents"][2]  # c/6, then c/7: the third of the second shard, b/4 being left out
    decoded = load_decoder(data).decode(torch.cat([tex[None], torch.zeros(1, 3, 16, 16)], dim=1), layout)[0]
    assert torch.equal(((decoded + 1) * 127.5).round().to(torch.uint8), expected)
    twin = load_file(files[1])["latents_flip"][2].reshape(3, 16, 16, 16, 16).permute(0, 3, 1, 4, 2).reshape(3, 256, 256)
    assert torch.equal(((twin + 1) * 127.5).round().to(torch.uint8), expected.flip(-1))
    assert run(load(Experiment, config, [*settings, "encode.on_error=skip", "data.flip=false"])) == data  # has them
    with Image.open(data / "train" / "first-images.png") as sheet:  # eight crops of 256, shown at 128, in a row
        assert sheet.size == (8 * 129 + 1, 130)
    features = load_patch_encoder("dinov2-s", folder / "dino").patch_features(expected[None])
    stored = load_file(files[1])["feats_dino"][2]
    # float16 storage (2^-11) of features of order 1 to 5, and float32 through twelve blocks in another batch.
    torch.testing.assert_close(stored.float(), features[0], rtol=2e-3, atol=5e-3)


def test_what_is_not_taken_is_counted_and_held_out_classes_are_trainings(photos, tmp_path):
    """GIFs, a pipe, a Mac's leftovers and a name of no encoding among the pictures; a held-out folder without a class;
    a picture of two frames, and one that is transparent on the colour asked for."""
    folder, config = photos
    train, val = tmp_path / "train", tmp_path / "val"
    for root, classes in ((train, "abc"), (val, "bc")):
        for name in classes:
            (root / name).mkdir(parents=True)
            (root / name / "1.jpg").write_bytes((folder / "images" / "a" / "0.jpg").read_bytes())
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    red.save(train / "a" / "2.png", save_all=True, append_images=[blue])
    Image.new("RGBA", (32, 32)).save(train / "b" / "3.png")
    for i in range(16):
        red.save(train / "a" / f"{i}.gif")
    (train / ".ipynb_checkpoints").mkdir()
    (val / ".DS_Store").write_bytes(b"")
    os.mkfifo(train / "a" / "pipe.png")
    (train / "c" / b"caf\xe9.jpg".decode("utf-8", "surrogateescape")).write_bytes(b"\xff\xd8\xff")
    more = [f"output={tmp_path}", f"encode.dataset={train}", f"encode.heldout={val}", "encode.on_error=skip"]
    more += ["encode.decoders=0", "encode.background=[0, 255, 0]", "encode.repa={encoder: none}", "data.flip=false"]
    more.append(f"encode.semantic={{group: sem, encoder: transformers, path: {tiny_dino(tmp_path / 'dino')}}}")
    data = run(load(Experiment, config, [*more, "compute.progress=false"]))
    splits = json.loads((data / "manifest.json").read_text())["splits"]
    assert (splits["train"]["images"], splits["train"]["skipped"], splits["train"]["animated"]) == (5, 19, 1)
    assert splits["heldout"]["per_class"] == [0, 1, 1] and splits["heldout"]["skipped"] == 1
    with (data / "unreadable.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert len(rows) == 20 and ["train", "a/3.gif", "named .gif"] in rows and ["train", "a/pipe.png", "a pipe"] in rows
    assert [row[1] for row in rows if "c/" in row[1]] == ["c/caf\\xe9.jpg"]
    shard = load_file(next((data / "heldout").glob("*.safetensors")))
    assert shard["labels"].tolist() == [1, 2] and not any(key.endswith("_flip") for key in shard)
    tex = torch.cat([load_file(f)["latents"] for f in sorted((data / "train").glob("*.safetensors"))])
    pixels = tex.reshape(5, 3, 16 * 16, 16, 16)[:, :, 0, 0, 0]  # the corners
    assert pixels[[1, 3]].tolist() == [[1, -1, -1], [-1, 1, -1]]  # the first frame; the background


def test_labels_csv_precision_and_no_features(photos, tmp_path):
    """A flat folder with labels.csv (several rows: tests/images), held-out images, bfloat16, no REPA features."""
    folder, config = photos
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = ["file,label"]
    for path in sorted((folder / "images").rglob("*.jpg"))[1:2]:
        (flat / path.name).write_bytes(path.read_bytes())
        rows.append(f"{path.name},{int(path.stem) + 4}")
    (flat / "labels.csv").write_text("\n".join(rows))
    more = [f"encode.dataset={flat}", f"encode.heldout={flat}", "encode.repa={encoder: none}", "compute.precision=bf16"]
    more.append(f"encode.semantic={{group: sem, encoder: transformers, path: {tiny_dino(tmp_path / 'dino')}}}")
    more.append("data.flip=false")
    data = run(load(Experiment, config, [f"output={tmp_path}", "compute.progress=false", *more]))
    tensors = load_file(data / "heldout" / "latents_rank00_shard0000.safetensors")
    assert tensors["labels"].tolist() == [5] and not any("feats" in key for key in tensors)
    assert tensors["latents_sv"].dtype == torch.float32
    assert content(data / "train") == content(data / "heldout")


def test_semantics_by_a_trained_semvae(whole, tmp_path):
    """Encode, train a SemVAE on the features, encode again with it; its posterior means are what is stored."""
    from lwd.stages import semvae

    tiny = "semvae={channels: 2, depth: 1, heads: 4, steps: 6, warmup: 2, batch: 32, eval_every: 6}"
    trained = semvae.run(load(Experiment, DIGITS, [*QUICK, f"data.path={whole}", f"output={tmp_path}", tiny]))
    override = f"encode.semantic={{group: sem, compress: semvae, semvae: {trained}}}"
    again = encode(tmp_path / "again", override)
    first = load_file(again / "train" / "latents_rank00_shard0000.safetensors")
    model = load_semvae(trained)
    with torch.no_grad():
        expected = model.encode(first["feats_dino"].float())
    # The pipeline encodes the features before they are rounded to float16 (2^-11) for the shards.
    torch.testing.assert_close(first["latents_sv"], expected, rtol=1e-2, atol=1e-2)
    assert first["latents_sv"].std() > 0.1
    assert torch.equal(first["latents"], load_file(whole / "train" / "latents_rank00_shard0000.safetensors")["latents"])


def test_any_vision_transformer_by_its_folder(tmp_path):
    """Grey digits of 8 pixels through a tiny DINOv2: 4 x 4 patches of 14 pixels, after its first block of two."""
    tiny_dino(tmp_path / "dino")
    semantic = f"{{group: sem, encoder: transformers, path: {tmp_path / 'dino'}, layer: 1}}"
    again = f"{{encoder: transformers, path: {tmp_path / 'dino'}, resolution: 28}}"
    data = encode(tmp_path, f"encode.semantic={semantic}", f"encode.repa={again}")
    manifest = json.loads((data / "manifest.json").read_text())
    facts = {key: manifest["semantic"][key] for key in ("model_type", "pixels", "tokens", "grid", "to_grid", "layers")}
    assert list(facts.values()) == ["dinov2", 56, 4, 4, "as they are", 1]
    assert manifest["repa"]["to_grid"] == "bilinear" and manifest["repa"]["layers"] == 2
    assert manifest["repa"]["weights_sha256"] != manifest["semantic"]["weights_sha256"]  # those that are used
    shard = load_file(sorted((data / "train").glob("*.safetensors"))[0])
    images = digits("train")[0][:50]
    features = load_transformers_encoder(tmp_path / "dino", 2, layer=1).patch_features(images)
    expected = PatchPCA.load(data / "pca.safetensors").encode(features)
    torch.testing.assert_close(shard["latents_sv"], expected, rtol=1e-4, atol=1e-4)
    assert shard["feats_dino"].shape == (50, 16, 4, 4)
    assert encode(tmp_path, f"encode.semantic={semantic}", f"encode.repa={again}") == data
    with pytest.raises(UserError, match="encoded with other settings"):
        encode(tmp_path, f"encode.semantic={semantic}", "encode.repa={encoder: none}")
    with pytest.raises(UserError, match="dino: layer 3: the model has 2"):
        encode(tmp_path / "other", f"encode.semantic={semantic.replace('layer: 1', 'layer: 3')}")


def test_any_autoencoder_by_its_folder(tmp_path):
    """A tiny KL autoencoder of grey pictures for the digits: its scale and shift go in, and come out when decoded."""
    import diffusers

    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    sizes = {"block_out_channels": [8, 8], "norm_num_groups": 4, "in_channels": 1, "out_channels": 1}
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(**blocks, **sizes, scaling_factor=0.3, shift_factor=0.5).eval()
    vae.save_pretrained(tmp_path / "vae")
    texture = f"encode.texture={{group: tex, encoder: diffusers, path: {tmp_path / 'vae'}}}"
    data = encode(tmp_path, texture, "encode.semantic.encoder=random-vit")
    shard = load_file(sorted((data / "train").glob("*.safetensors"))[0])
    with torch.no_grad():
        mean = vae.encode(digits("train")[0][:50]).latent_dist.mean
        decoded = vae.decode(mean).sample
    torch.testing.assert_close(shard["latents"], 0.3 * (mean - 0.5), rtol=1e-4, atol=1e-5)
    composite = torch.cat([shard["latents"], torch.zeros(50, 2, 4, 4)], dim=1)
    images = load_decoder(data).decode(composite, load(Experiment, DIGITS).layout)
    torch.testing.assert_close(images, decoded, rtol=1e-4, atol=1e-4)
    assert carry(data, load(Experiment, DIGITS).layout, tmp_path / "released") == "statistics and decoder (diffusers)"
    released = load_decoder(tmp_path / "released").decode(composite, load(Experiment, DIGITS).layout)
    assert torch.equal(released, images)
    assert json.loads((tmp_path / "released" / "manifest.json").read_text())["texture"]["scale"] == 0.3
    layout, config = load(Experiment, DIGITS).layout, tmp_path / "vae" / "config.json"
    config.write_text(config.read_text().replace("0.3", "0.25"))  # the latents are what they are
    assert torch.equal(load_decoder(data).decode(composite, layout), images)
    carry(data, layout, tmp_path / "second")
    assert torch.equal(load_decoder(tmp_path / "second").decode(composite, layout), images)
    assert json.loads((tmp_path / "second" / "vae" / "config.json").read_text())["scaling_factor"] == 0.3
    torch.nn.init.zeros_(vae.decoder.conv_out.bias)
    vae.save_pretrained(tmp_path / "vae")
    for use in (load_decoder, lambda folder: carry(folder, layout, tmp_path / "third")):
        with pytest.raises(UserError, match=r"vae: its weights are not those that .*data was encoded with; put that"):
            use(data)
    facts = json.loads((data / "manifest.json").read_text())["texture"]
    assert (facts["class"], facts["factor"], facts["scale"], facts["shift"]) == ("AutoencoderKL", 2, 0.3, 0.5)
    with pytest.raises(UserError, match=r"encode\.texture.*name the autoencoder's diffusers folder"):
        encode(tmp_path / "other", "encode.texture={group: tex, encoder: diffusers}")


def test_shards_of_two_autoencoders_are_not_mixed(tmp_path, monkeypatch):
    """An unfinished folder whose VAE was replaced at its place."""
    import diffusers

    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    sizes = {"block_out_channels": [8, 8], "norm_num_groups": 4, "in_channels": 1, "out_channels": 1}
    vae = diffusers.AutoencoderKL(**blocks, **sizes, scaling_factor=0.3)
    vae.save_pretrained(tmp_path / "vae")
    texture = f"encode.texture={{group: tex, encoder: diffusers, path: {tmp_path / 'vae'}}}"
    arguments = (tmp_path, texture, "encode.semantic.encoder=random-vit")
    with monkeypatch.context() as patched:
        patched.setattr(stage, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            encode(*arguments)
    vae.register_to_config(scaling_factor=0.5)
    vae.save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match=r"data: begun with other weights or another scale or .* than encode\.texture"):
        encode(*arguments)
    vae.register_to_config(scaling_factor=0.3)
    vae.save_pretrained(tmp_path / "vae")
    assert not (encode(*arguments) / ".encoders.json").exists()


@pytest.mark.parametrize("after", ["prepare", "encode_split"])
def test_what_two_networks_see_is_not_mixed(tmp_path, monkeypatch, after):
    """Principal components or shards of a network that was replaced at its place."""
    import transformers

    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 28, "patch_size": 14}
    first, second = (transformers.Dinov2Model(transformers.Dinov2Config(**sizes)) for _ in range(2))
    first.save_pretrained(tmp_path / "dino")
    semantic = f"encode.semantic={{group: sem, encoder: transformers, path: {tmp_path / 'dino'}, resolution: 28}}"
    arguments = (tmp_path, semantic)
    with monkeypatch.context() as patched:
        done = getattr(stage, after)
        patched.setattr(stage, after, lambda *a: (done(*a), (_ for _ in ()).throw(KeyboardInterrupt)))
        with pytest.raises(KeyboardInterrupt):
            encode(*arguments)
    second.save_pretrained(tmp_path / "dino")
    with pytest.raises(
        UserError, match=r"data: begun with other weights or another scale or .* than encode\.semantic\.path has"
    ):
        encode(*arguments)
    first.save_pretrained(tmp_path / "dino")
    assert not (encode(*arguments) / ".encoders.json").exists()


def test_four_groups(tmp_path):
    """Edges, and principal components of another network, beside the two usual groups; only the texture is decoded."""
    channels = {"tex": 4, "edge": 1, "sem": 2, "other": 3}
    groups = ", ".join(f"{{name: {name}, channels: {count}}}" for name, count in channels.items())
    further = "encode.further=[{group: edge, encoder: edges}, {group: other, encoder: random-vit}]"
    data = encode(tmp_path, f"groups=[{groups}]", further)
    images = digits("train")[0][:50]
    shard = load_file(sorted((data / "train").glob("*.safetensors"))[0])
    torch.testing.assert_close(shard["latents_edge"], Edges(2).patch_features(images))
    network = SmallViT()
    network.load_state_dict(load_file(data / "random.safetensors"))
    with torch.no_grad():
        other = PatchPCA.load(data / "pca-other.safetensors").encode(network.patch_features(images))
    torch.testing.assert_close(shard["latents_other"], other, rtol=1e-4, atol=1e-4)
    layout = load(Experiment, DIGITS, [f"groups=[{groups}]"]).layout
    assert len(LatentShards(data / "heldout", layout, flip=False)) == 445
    composite = torch.cat([shard[shard_key(group)] for group in layout.groups], dim=1)
    assert torch.equal(load_decoder(data).decode(composite, layout), images)
    manifest = json.loads((data / "manifest.json").read_text())
    assert [part["group"] for part in manifest["further"]] == ["edge", "other"]
    assert len(manifest["further"][1]["explained_variance_ratio"]) == 3 and manifest["semantic"]["group"] == "sem"
    assert encode(tmp_path, f"groups=[{groups}]", further) == data
    with pytest.raises(UserError, match="encoded with other settings"):
        encode(tmp_path, f"groups=[{groups}]", further.replace("random-vit", "small-vit"))
    for override, line in [
        ("encode.further=[]", r"'other'\]; encode.further makes a third one"),
        (
            further.replace("edges", "edgy"),
            r"encode.further\[0\].encoder: unknown encoder 'edgy'; known: downsample, e",
        ),
        (further.replace("edges}", "edges, compress: semvae}"), "edges is stored as it is"),
        (further.replace("random-vit", "edges"), "'other' has 3 channels, its encoder makes 1"),
    ]:
        with pytest.raises(UserError, match=line):
            dry_run(tmp_path / "other", f"groups=[{groups}]", override)
