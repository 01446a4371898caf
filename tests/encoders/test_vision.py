"""Patch features: the published architectures with random weights, against transformers called by hand."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lwd.encoders.pretrained import fingerprint, library
from lwd.encoders.vision import (
    VISION_MODELS,
    PatchEncoder,
    architecture,
    load_patch_encoder,
    random_patch_encoder,
    vision_model,
)
from lwd.errors import UserError

PARAMETERS = {  # millions, and widths, as timm lists the same networks
    "dinov2-s": (22, 384),
    "dinov2-b": (86, 768),
    "dinov2-l": (304, 1024),
    "dinov2-g": (1136, 1536),
    "clip-b16": (86, 768),
    "clip-l14": (304, 1024),
}

PUBLISHED_NAMES = (  # some of a layer's, as in the Hub's files; transformers 5 names them otherwise in memory
    "attention.attention.query.weight",
    "attention.attention.value.bias",
    "attention.output.dense.weight",
    "layer_scale1.lambda1",
    "mlp.fc2.weight",
    "norm1.bias",
)


@pytest.fixture(scope="module")
def dino() -> PatchEncoder:
    """The initial tokens are zero in transformers' initialisation; here they have values, so that they would show."""
    encoder = random_patch_encoder("dinov2-s")
    torch.manual_seed(0)
    for parameter in (encoder.model.embeddings.cls_token, encoder.model.embeddings.register_tokens):
        parameter.normal_()
    return encoder


@pytest.fixture(scope="module")
def clip() -> PatchEncoder:
    return random_patch_encoder("clip-b16")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def on_meta(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return library("transformers", "AutoModel").from_config(architecture(name))


def keys_bicubic(size: int, target: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Cubic convolution (Keys, 1981; a = -0.75) at half-pixel centres with repeated borders: (target, size)."""
    matrix = np.zeros((target, size))
    for row in range(target):
        centre = (row + 0.5) * size / target - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            d = abs(centre - tap)
            w = 1.25 * d**3 - 2.25 * d**2 + 1 if d <= 1 else -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[row, min(max(tap, 0), size - 1)] += w
    return matrix


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("dinov2-s", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("clip-b16", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ],
)
def test_preprocessing(name: str, mean: tuple[float, ...], std: tuple[float, ...], images: Tensor) -> None:
    """uint8 and [-1, 1] alike: normalised, and resized without antialiasing. Tolerance 2e-4: torch's positions are
    float32, which has steps of 2^-16 at 256, and noise changes by up to 4.5 from pixel to pixel."""
    encoder = PatchEncoder(on_meta(name).to_empty(device="cpu"), name)
    resize = keys_bicubic(256, 224)
    pixels = (images.double().numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    expected = torch.from_numpy(resize @ pixels @ resize.T).float()
    for given in (images, images.float() / 127.5 - 1):
        torch.testing.assert_close(encoder.preprocess(given), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "module", "processor"),
    [
        ("dinov2-s", "transformers.models.bit.image_processing_pil_bit", "BitImageProcessorPil"),
        ("clip-b16", "transformers.models.clip.image_processing_pil_clip", "CLIPImageProcessorPil"),
    ],
)
def test_normalisation_is_that_of_the_image_processor(name: str, module: str, processor: str) -> None:
    """On images of one colour, where any resize gives the same; 1e-5 for float32."""
    constants = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]} if "dino" in name else {}
    colours = np.random.default_rng(0).integers(0, 256, (4, 1, 1, 3), dtype=np.uint8)
    pictures = np.broadcast_to(colours, (4, 256, 256, 3))
    expected = library(module, processor)(**constants)(list(pictures), return_tensors="np")["pixel_values"]
    assert expected.shape == (4, 3, 224, 224)
    encoder = PatchEncoder(on_meta(name).to_empty(device="cpu"), name)
    ours = encoder.preprocess(torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2))
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_dinov2_tokens(dino: PatchEncoder, images: Tensor) -> None:
    """1 class token, 4 registers, then 16x16 patches row by row, after the final layer norm; exactly as called."""
    with torch.no_grad():
        tokens = dino.model(dino.preprocess(images), output_hidden_states=True)
    assert tokens.last_hidden_state.shape == (2, 1 + 4 + 256, 384)
    features = dino.patch_features(images)
    assert features.shape == (2, 384, 16, 16)
    assert features.dtype == torch.float32
    for row, column in [(0, 0), (0, 1), (1, 0), (15, 15)]:
        assert torch.equal(features[..., row, column], tokens.last_hidden_state[:, 5 + 16 * row + column])
    unit = tokens.hidden_states[-1][:, 5:]  # the layer norm's affine part is still the identity
    unit = (unit - unit.mean(2, keepdim=True)) / unit.var(2, keepdim=True, correction=0).add(1e-6).sqrt()
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), unit, rtol=0, atol=1e-5)


def test_clip_tokens(clip: PatchEncoder, images: Tensor) -> None:
    """1 class token, 14x14 patches of the last block without the post-layernorm, interpolated to 16x16."""
    with torch.no_grad():
        clip.model.post_layernorm.bias.add_(5)
        output = clip.model(clip.preprocess(images), output_hidden_states=True)
    tokens = output.hidden_states[-1]
    assert tokens.shape == (2, 1 + 196, 768)
    features = clip.patch_features(images)
    assert features.shape == (2, 768, 16, 16)
    grid = tokens[:, 1:].reshape(2, 14, 14, 768)
    for i in range(3, 13, 4):
        for j in range(2, 14, 5):  # by hand, at half-pixel centres; float32 sums of values to 5: 1e-5
            y, x = (i + 0.5) * 14 / 16 - 0.5, (j + 0.5) * 14 / 16 - 0.5
            top, left = math.floor(y), math.floor(x)
            expected = sum(
                (1 - abs(y - a)) * (1 - abs(x - b)) * grid[:, a, b] for a in (top, top + 1) for b in (left, left + 1)
            )
            torch.testing.assert_close(features[..., i, j], expected, rtol=0, atol=1e-5)
    assert torch.equal(features[..., 0, 0], grid[:, 0, 0])  # the corner's neighbours lie outside


def test_crops_are_stitched_where_they_were(dino: PatchEncoder) -> None:
    """Four crops that differ: each quarter of the features is its crop's own (batch of 4 against 1: 1e-4)."""
    rows, columns = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
    image = torch.stack([rows / 256 - 1, columns / 256 - 1, (rows * columns) % 97 / 97])[None]
    features = dino.patch_features(image)
    assert features.shape == (1, 384, 32, 32)
    quarters = {}
    for i in range(2):
        for j in range(2):
            alone = dino.patch_features(image[..., 256 * i : 256 * (i + 1), 256 * j : 256 * (j + 1)])
            assert relative(features[..., 16 * i : 16 * (i + 1), 16 * j : 16 * (j + 1)], alone) < 1e-4
            quarters[i, j] = alone
    assert min(relative(quarters[a], quarters[b]) for a in quarters for b in quarters if a < b) > 0.01


def test_batch_size_and_dtype(dino: PatchEncoder, images: Tensor, tmp_path: Path) -> None:
    """One by one or together, to 1e-4 of the largest value (summation order); bfloat16 to 5 % in the root mean square,
    which 12 blocks of rounding to 8 bits may add up to."""
    together = dino.patch_features(images)
    assert torch.equal(dino.patch_features(images), together)
    singly = torch.cat([dino.patch_features(image[None]) for image in images])
    assert relative(singly, together) < 1e-4
    dino.model.save_pretrained(tmp_path)
    half = load_patch_encoder("dinov2-s", tmp_path, dtype=torch.bfloat16)
    rough = half.patch_features(images[:1])
    assert half.model.dtype == torch.bfloat16
    assert rough.dtype == torch.float32
    assert 1e-4 < ((rough - together[:1]).norm() / together[:1].norm()).item() < 0.05
    assert half.fingerprint() != dino.fingerprint()


@pytest.mark.parametrize("name", VISION_MODELS)
def test_published_sizes(name: str) -> None:
    spec = vision_model(name)
    millions, width = PARAMETERS[name]
    encoder = PatchEncoder(on_meta(name), name)
    assert sum(parameter.numel() for parameter in encoder.model.parameters()) / 1e6 == pytest.approx(millions, abs=1)
    assert encoder.width == width
    assert 224 // spec.patch == (14 if name == "clip-b16" else 16)


@pytest.mark.usefixtures("no_network")
def test_local_folders(dino: PatchEncoder, images: Tensor, tmp_path: Path) -> None:
    """The same features and fingerprint from safetensors or a pickle of the weights, without touching the network."""
    folder = tmp_path / "dino"
    dino.model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    assert {f"encoder.layer.11.{name}" for name in PUBLISHED_NAMES} <= set(tensors)
    expected = dino.patch_features(images[:1])
    loaded = load_patch_encoder("dinov2-s", folder)
    assert torch.equal(loaded.patch_features(images[:1]), expected)
    assert loaded.fingerprint() == dino.fingerprint()
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert load_patch_encoder("dinov2-s", folder).fingerprint() == dino.fingerprint()


def test_whole_clip_folders(clip: PatchEncoder, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The Hub's CLIP folders hold both towers and a config of both; the text tower is left out without a word."""
    state = {
        f"vision_model.{key.removeprefix('vision_model.')}": value for key, value in clip.model.state_dict().items()
    }
    state |= {"logit_scale": torch.zeros(()), "text_model.final_layer_norm.weight": torch.zeros(512)}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    vision = {"hidden_size": 768, "patch_size": 16, "model_type": "clip_vision_model"}
    config = {"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 512, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_patch_encoder("clip-b16", tmp_path).fingerprint() == clip.fingerprint()
    assert capfd.readouterr() == ("", "")


def test_bad_folders(dino: PatchEncoder, tmp_path: Path) -> None:
    good = tmp_path / "good"
    dino.model.save_pretrained(good)

    def variant(name: str) -> Path:
        return Path(shutil.copytree(good, tmp_path / name, copy_function=os.link))

    def replace(path: Path, content: bytes) -> None:
        path.unlink()
        path.write_bytes(content)

    without = variant("without")
    tensors = load_file(without / "model.safetensors")
    del tensors["embeddings.register_tokens"]
    (without / "model.safetensors").unlink()
    save_file(tensors, without / "model.safetensors", metadata={"format": "pt"})
    cut = variant("cut")
    replace(cut / "model.safetensors", (good / "model.safetensors").read_bytes()[:100_000])
    pickled = variant("pickled")
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(b"not a pickle")
    empty = variant("empty")
    (empty / "model.safetensors").unlink()
    config = variant("config")
    replace(config / "config.json", b"{")
    for name, folder, line in [
        ("dinov2-s", without, "weight 'embeddings.register_tokens' is missing"),
        ("dinov2-b", good, "config.json: hidden_size is 384, dinov2-b has 768"),
        ("clip-b16", good, "config.json: "),
        ("dinov2-s", cut, "cannot be read as dinov2-s"),
        ("dinov2-s", pickled, "cannot be read as dinov2-s"),
        ("dinov2-s", empty, "cannot be read as dinov2-s"),
        ("dinov2-s", config, "cannot be read as dinov2-s"),
        ("dinov2-s", tmp_path / "no", "no folder with a config.json; download facebook/dinov2-with-registers-small"),
        ("dinov2-x", good, "unknown vision model 'dinov2-x'; known: dinov2-s, "),
    ]:
        with pytest.raises(UserError, match=line) as error:
            load_patch_encoder(name, folder)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", VISION_MODELS)
def test_offline(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repo = VISION_MODELS[name].repo
    with pytest.raises(UserError, match=f"'{repo}': cannot get config.json .*; download {repo} on a machine") as error:
        load_patch_encoder(name)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("no_network")
def test_hub_cache(dino: PatchEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy in the Hub's cache, in either format of the weights, is taken without touching the network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    entry = tmp_path / "models--facebook--dinov2-with-registers-small"
    snapshot = entry / "snapshots" / ("a" * 40)
    dino.model.save_pretrained(snapshot)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("a" * 40)
    assert load_patch_encoder("dinov2-s").fingerprint() == dino.fingerprint()
    torch.save(load_file(snapshot / "model.safetensors"), snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()
    assert load_patch_encoder("dinov2-s").fingerprint() == dino.fingerprint()


def test_wrong_images(dino: PatchEncoder) -> None:
    for shape in [(1, 3, 128, 128), (1, 3, 256, 512), (1, 3, 300, 300), (1, 1, 256, 256), (3, 256, 256)]:
        with pytest.raises(ValueError, match="dinov2-s takes images"):
            dino.patch_features(torch.zeros(shape))
    with pytest.raises(ValueError, match="uint8 or floating-point"):
        dino.patch_features(torch.zeros(1, 3, 256, 256, dtype=torch.int64))


def test_the_fingerprint_sees_every_change_but_of_names() -> None:
    def module(**changes: Tensor) -> torch.nn.Module:
        tensors = {"b": torch.tensor([0.0, 1.0]), "a": torch.tensor(3), "h": torch.zeros(2, 2, dtype=torch.bfloat16)}
        holder = torch.nn.Module()
        for name, value in {**tensors, **changes}.items():
            holder.register_buffer(name, value)
        return holder

    reference = fingerprint(module())
    assert len(reference) == 64
    renamed = torch.nn.Module()
    for name, value in reversed(module().state_dict().items()):
        renamed.register_buffer(f"new_{name}", value)
    assert fingerprint(renamed) == reference
    changes: list[dict[str, Tensor]] = [
        {"b": torch.tensor([-0.0, 1.0])},
        {"b": torch.tensor([[0.0, 1.0]])},
        {"a": torch.tensor(3, dtype=torch.int32)},
        {"h": torch.zeros(2, 2, dtype=torch.float16)},
        {"c": torch.tensor(0)},
    ]
    assert len({reference, *(fingerprint(module(**change)) for change in changes)}) == 1 + len(changes)
    long = {"b": torch.zeros(2**22 + 1)}  # two chunks: 16 MiB and 4 bytes
    other = {"b": torch.cat([torch.zeros(2**22), torch.ones(1)])}
    assert fingerprint(module(**long)) != fingerprint(module(**other))


def test_a_missing_library_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"transformers cannot be imported .*pip install 'lwd\[encoders\]'"):
        architecture("dinov2-s")
