"""Every family of vision transformers, tiny and with random weights, against transformers called by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from lwd.encoders.vision import FAMILIES, TransformersEncoder, load_transformers_encoder
from lwd.errors import UserError

WIDTH, DEPTH, SIDE, PATCH = 32, 3, 4, 8
SIZE = SIDE * PATCH
TINY = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 2, "patch_size": PATCH}
TINY |= {"intermediate_size": 64, "image_size": SIZE}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 99}
NAMES = {  # config, model, tokens before the patches, the final norm on patches
    "dinov2": ("Dinov2Config", "Dinov2Model", 1, "layernorm"),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", 4, "layernorm"),
    "dinov3_vit": ("DINOv3ViTConfig", "DINOv3ViTModel", 3, "norm"),
    "clip_vision_model": ("CLIPVisionConfig", "CLIPVisionModel", 1, None),
    "siglip_vision_model": ("SiglipVisionConfig", "SiglipVisionModel", 0, "post_layernorm"),
    "siglip2_vision_model": ("Siglip2VisionConfig", "Siglip2VisionModel", 0, "post_layernorm"),
    "vit_mae": ("ViTMAEConfig", "ViTMAEModel", 1, "layernorm"),
    "ijepa": ("IJepaConfig", "IJepaModel", 0, "layernorm"),
    "vit": ("ViTConfig", "ViTModel", 1, "layernorm"),
}
REGISTERS = {"dinov2_with_registers": 3, "dinov3_vit": 2}


def tiny(kind: str) -> Any:
    """The model with random weights in every parameter, so that none can be misplaced unseen."""
    config_class, model_class = NAMES[kind][:2]
    fields = dict(TINY)
    if kind in REGISTERS:
        fields["num_register_tokens"] = REGISTERS[kind]
    if kind == "siglip2_vision_model":
        fields["num_patches"] = SIDE**2
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model.requires_grad_(False)


def save(model: Any, folder: Path, **preprocessing: Any) -> Path:
    model.save_pretrained(folder)
    if preprocessing:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def called_by_hand(model: Any, kind: str, pixels: Tensor, **more: Any) -> Any:
    if kind == "siglip2_vision_model":
        patches = torch.stack([torch.from_numpy(convert_image_to_patches(image.numpy(), PATCH)) for image in pixels])
        mask, shape = torch.ones(patches.shape[:2]), torch.tensor([[SIDE, SIDE]] * len(pixels))
        return model(patches, pixel_attention_mask=mask, spatial_shapes=shape, **more)
    return model(pixels, **more)


@pytest.mark.parametrize("kind", NAMES)
def test_tokens_are_those_of_the_class_called_by_hand(kind: str, images: Tensor, tmp_path: Path) -> None:
    """Row by row after the class token and registers, through the final norm; and after an earlier block likewise.

    At the model's own size, where nothing is resized or interpolated. float32 and one order of sums: 1e-5.
    """
    assert NAMES.keys() == FAMILIES.keys()
    model, (_, _, prefix, norm) = tiny(kind), NAMES[kind]
    mean, std = [0.3, 0.4, 0.5], [0.2, 0.25, 0.3]
    save(model, tmp_path, image_mean=mean, image_std=std)
    encoder = load_transformers_encoder(tmp_path, PATCH)
    assert encoder.plan(SIZE) == (SIZE, SIDE, SIDE)
    pixels = ((images + 1) / 2 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    if kind == "vit_mae":  # its own order of tokens is a random one, undone here
        model.config.mask_ratio = 0.0
    output = called_by_hand(model, kind, pixels, output_hidden_states=True)
    ends = {DEPTH: output.last_hidden_state}
    after = output.hidden_states[2]
    ends[2] = after if norm is None else getattr(model, norm)(after)
    for layer, tokens in ends.items():
        expected = tokens[:, prefix:]
        if kind == "vit_mae":
            expected = torch.stack([one[order] for one, order in zip(expected, output.ids_restore, strict=True)])
        expected = expected.reshape(2, SIDE, SIDE, WIDTH).permute(0, 3, 1, 2)
        features = load_transformers_encoder(tmp_path, PATCH, layer=layer).patch_features(images)
        assert features.shape == (2, WIDTH, SIDE, SIDE) and features.dtype == torch.float32
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    facts = encoder.facts(SIZE)
    assert facts["final_norm"] == (norm is not None) and facts["layers"] == DEPTH and facts["to_grid"] == "as they are"
    assert facts["preprocessing"] == {
        "mean": tuple(mean),
        "std": tuple(std),
        "resize": "bicubic",
        "source": "preprocessor_config.json",
    }


@pytest.mark.parametrize("kind", NAMES)
def test_a_patch_of_the_image_moves_its_own_token_and_no_other(kind: str, images: Tensor, tmp_path: Path) -> None:
    """With attention silenced a token sees its own patch alone: another picture in patch (1, 2) changes (1, 2)."""
    model = tiny(kind)
    silenced = [
        parameter
        for name, parameter in model.named_parameters()
        if "head." not in name and any(part in name for part in ("out_proj", "o_proj", "attention.output.dense"))
    ]
    assert len(silenced) == 2 * DEPTH
    for parameter in silenced:
        parameter.zero_()
    encoder = load_transformers_encoder(save(model, tmp_path), PATCH)
    before = images[:1]
    after = before.clone()
    after[..., PATCH : 2 * PATCH, 2 * PATCH : 3 * PATCH] = 0.5
    moved = (encoder.patch_features(after) - encoder.patch_features(before)).abs().amax(1)[0]
    assert moved[1, 2] > 0.1
    moved[1, 2] = 0
    assert moved.max() < 1e-5


@pytest.mark.parametrize(
    ("composite", "kind"),
    [("CLIP", "clip_vision_model"), ("Siglip", "siglip_vision_model"), ("Siglip2", "siglip2_vision_model")],
)
def test_folders_with_a_text_tower(composite: str, kind: str, images: Tensor, tmp_path: Path) -> None:
    vision = tiny(kind)
    config = getattr(transformers, f"{composite}Config")(vision_config=vision.config.to_dict(), text_config=TEXT)
    whole = getattr(transformers, f"{composite}Model")(config)
    whole.vision_model.load_state_dict(vision.state_dict())
    encoder = load_transformers_encoder(save(whole, tmp_path / "whole"), PATCH)
    alone = load_transformers_encoder(save(vision, tmp_path / "alone"), PATCH)
    assert torch.equal(encoder.patch_features(images), alone.patch_features(images))
    assert encoder.fingerprint() == alone.fingerprint()


def test_other_sizes(images: Tensor, tmp_path: Path) -> None:
    """A family of many sizes is shown as many patches as the grid has; another its own size, and its tokens are then
    averaged, or interpolated, onto the grid; a resolution overrides either."""
    dino = save(tiny("dinov2"), tmp_path / "dino")
    encoder = load_transformers_encoder(dino, 4)  # 32 pixels, 8 positions
    assert encoder.plan(32) == (64, 8, 8)
    assert encoder.patch_features(images).shape == (2, WIDTH, 8, 8)
    # The whole image is resized: bicubic, antialiased, as by hand.
    pixels = F.interpolate(images / 2 + 0.5, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in FAMILIES["dinov2"].default)
    by_hand = encoder.model((pixels - mean) / std).last_hidden_state[:, 1:].transpose(1, 2).reshape(2, WIDTH, 8, 8)
    torch.testing.assert_close(encoder.patch_features(images), by_hand, rtol=1e-5, atol=1e-5)

    own = load_transformers_encoder(dino, 8).patch_features(images)  # 4 x 4, one patch each
    halved = load_transformers_encoder(dino, 16, resolution=32)
    assert halved.plan(32) == (32, 4, 2) and halved.facts(32)["to_grid"] == "adaptive average"
    means = own.reshape(2, WIDTH, 2, 2, 2, 2).mean((3, 5))
    torch.testing.assert_close(halved.patch_features(images), means, rtol=1e-5, atol=1e-6)

    clip = save(tiny("clip_vision_model"), tmp_path / "clip")
    finer = load_transformers_encoder(clip, 4)
    assert finer.plan(32) == (32, 4, 8) and finer.facts(32)["to_grid"] == "bilinear"
    coarse = load_transformers_encoder(clip, 8).patch_features(images)
    fine = finer.patch_features(images)
    weights = torch.tensor([0.75, 0.25])  # positions 1 and 2 of 8 lie a quarter beside positions 0 and 1 of 4
    expected = torch.einsum("ncij,i,j->nc", coarse[..., :2, :2], weights, weights)
    torch.testing.assert_close(fine[..., 1, 1], expected, rtol=1e-5, atol=1e-5)
    assert load_transformers_encoder(clip, 4, resolution=64).patch_features(images).shape == (2, WIDTH, 8, 8)
    grey = images[:, :1]
    assert torch.equal(finer.patch_features(grey), finer.patch_features(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(("resample", "name"), [(2, "BILINEAR"), (3, "BICUBIC")])
def test_the_resize_is_pillows(resample: int, name: str, tmp_path: Path) -> None:
    """Smaller and larger, within 1.5 grey levels: Pillow rounds to 8 bits after each of its two passes. Middle greys,
    since it cuts off what lies beyond black and white there, too."""
    folder = save(tiny("dinov2"), tmp_path, image_mean=[0, 0, 0], image_std=[1, 1, 1], resample=resample)
    encoder = load_transformers_encoder(folder, PATCH)
    picture = np.random.default_rng(0).integers(64, 192, (60, 60, 3), dtype=np.uint8)
    images = torch.from_numpy(picture).permute(2, 0, 1)[None]
    for size in (32, 96):
        ours = encoder.preprocessing(images, size, torch.device("cpu"))[0].permute(1, 2, 0) * 255
        pillow = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling[name]), dtype=np.float32)
        assert np.abs(ours.numpy() - pillow).max() < 1.5


def test_preprocessing_that_a_folder_leaves_open(tmp_path: Path) -> None:
    model = tiny("siglip_vision_model")
    found = load_transformers_encoder(save(model, tmp_path), PATCH).preprocessing
    assert (found.mean, found.std, found.resize) == ((0.5,) * 3, (0.5,) * 3, "bicubic") and "family" in found.source
    save(model, tmp_path, do_normalize=False, size={"shortest_edge": 7}, crop_size=5)
    found = load_transformers_encoder(tmp_path, PATCH).preprocessing
    assert (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)
    for wrong, line in [
        ({"image_mean": [0.5]}, "image_mean must be three numbers"),
        ({"image_std": [0, 1, 1]}, "must be above 0"),
        ({"image_std": ["a", 1, 1]}, "image_std must be three numbers"),
        ({"rescale_factor": 1}, "rescale_factor is 1; only"),
        ({"rescale_factor": "half"}, "rescale_factor is 'half'; only"),
        ({"image_mean": [10**400, 1, 1]}, "image_mean must be three numbers"),
    ]:
        save(model, tmp_path, **wrong)
        with pytest.raises(UserError, match=line) as error:
            load_transformers_encoder(tmp_path, PATCH)
        assert "\n" not in str(error.value)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each, and no code of a folder is run."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    good = save(tiny("dinov2"), tmp_path / "good")
    (tmp_path / "empty").mkdir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    ran = tmp_path / "ran"
    (foreign / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass C: pass\n")

    def config(**fields: Any) -> Path:
        (foreign / "config.json").write_text(json.dumps(fields))
        return foreign

    own_code = {"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.C"}}
    for fields, line in [
        (own_code, "model_type 'mine' is not supported; known: DINOv2, DINOv2 with registers, DINOv3, CLIP"),
        (own_code | {"model_type": "dinov2"}, "foreign: cannot be read as DINOv2"),
        ({"model_type": "bert"}, "model_type 'bert' is not supported"),
        ({"vision_config": 3, "model_type": "clip"}, "model_type None is not supported"),
        ({}, "model_type None is not supported"),
        ({"model_type": ["dinov2"]}, "model_type .* is not supported"),
        ({"model_type": "dinov2", "patch_size": [14, 7]}, "foreign"),
        ({"model_type": "dinov2", "num_hidden_layers": "many"}, "foreign"),
    ]:
        with pytest.raises(UserError, match=line) as error:
            load_transformers_encoder(config(**fields), PATCH)
        assert "\n" not in str(error.value)
    assert not ran.exists()
    made = json.loads((good / "config.json").read_text())
    for changed in ({"patch_size": 0}, {"num_attention_heads": 0}):
        (good / "config.json").write_text(json.dumps(made | changed))
        with pytest.raises(UserError, match="good: cannot be read as DINOv2"):
            load_transformers_encoder(good, PATCH)
    (good / "config.json").write_text(json.dumps(made))
    for source, more, line in [
        (good, {"layer": 0}, "good: layer 0: the model has 3; choose one from 1 to 3"),
        (good, {"layer": 4}, "good: layer 4: the model has 3; choose one from 1 to 3"),
        (good, {"resolution": 30}, "good: resolution 30 is no multiple of the patch of 8 pixels"),
        (tmp_path / "empty", {}, "empty: no config.json there"),
        (tmp_path / "no", {}, "no: no such folder"),
        ("facebook/dinov2-small", {}, "'facebook/dinov2-small': cannot get .* download facebook/dinov2-small on a"),
    ]:
        with pytest.raises(UserError, match=line) as error:
            load_transformers_encoder(source, PATCH, **more)
        assert "\n" not in str(error.value)
    (good / "model.safetensors").unlink()
    with pytest.raises(UserError, match="good: cannot be read as DINOv2"):
        load_transformers_encoder(good, PATCH)


@pytest.mark.usefixtures("no_network")
def test_hub_cache(images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached copy is taken with its preprocessing, and without one by the family's."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    entry = tmp_path / "models--facebook--dinov2-small"
    snapshot = entry / "snapshots" / ("a" * 40)
    save(tiny("dinov2"), snapshot, image_mean=[0.1, 0.2, 0.3])
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("a" * 40)
    assert load_transformers_encoder("facebook/dinov2-small", PATCH).preprocessing.mean == (0.1, 0.2, 0.3)
    (snapshot / "preprocessor_config.json").unlink()
    assert load_transformers_encoder("facebook/dinov2-small", PATCH).preprocessing.source != "preprocessor_config.json"


def test_wrong_images(tmp_path: Path) -> None:
    encoder = load_transformers_encoder(save(tiny("dinov2"), tmp_path), PATCH)
    for shape in [(1, 3, 32, 64), (1, 2, 32, 32), (3, 32, 32)]:
        with pytest.raises(ValueError, match="DINOv2 takes images"):
            encoder.patch_features(torch.zeros(shape))
    with pytest.raises(ValueError, match="factor 8 does not divide images of 30 pixels"):
        encoder.patch_features(torch.zeros(1, 3, 30, 30))
    with pytest.raises(ValueError, match="uint8 or floating-point"):
        encoder.patch_features(torch.zeros(1, 3, 32, 32, dtype=torch.int64))


def test_bfloat16(images: Tensor, tmp_path: Path) -> None:
    """Weights of 8 bits; features are float32, 5 % off at most in the root mean square after three blocks."""
    folder = save(tiny("dinov3_vit"), tmp_path)
    exact: TransformersEncoder = load_transformers_encoder(folder, PATCH)
    rough = load_transformers_encoder(folder, PATCH, dtype=torch.bfloat16)
    a, b = exact.patch_features(images), rough.patch_features(images)
    assert b.dtype == torch.float32 and 1e-4 < ((a - b).norm() / a.norm()).item() < 0.05
