"""Published autoencoders, tiny and with random weights, against their parts in diffusers called by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lwd.encoders.texture import TextureEncoder
from lwd.encoders.vae import CLASSES, SDVAE, Autoencoder, load_vae
from lwd.encoders.vae.keys import CONFIG
from lwd.errors import UserError

KL = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [8] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
DC = {
    "latent_channels": 4,
    "encoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
    "decoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
    "encoder_block_out_channels": [8, 8, 16],
    "decoder_block_out_channels": [8, 8, 16],
    "encoder_layers_per_block": [1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1],
    "encoder_qkv_multiscales": [[], [], [5]],
    "decoder_qkv_multiscales": [[], [], [5]],
    "attention_head_dim": 8,
    "scaling_factor": 0.41407,
}
TINY = {
    "encoder_block_out_channels": [8] * 4,
    "decoder_block_out_channels": [8] * 4,
    "num_encoder_blocks": [1] * 4,
    "num_decoder_blocks": [1] * 4,
}
PUBLISHED = {  # class, config, factor, scale, shift
    "f8d4": ("AutoencoderKL", KL, 8, 0.18215, 0.0),
    "FLUX": (
        "AutoencoderKL",
        KL
        | {"latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159}
        | {"use_quant_conv": False, "use_post_quant_conv": False},
        8,
        0.3611,
        0.1159,
    ),
    "SANA": ("AutoencoderDC", DC, 4, 0.41407, 0.0),
    "TAESD": ("AutoencoderTiny", TINY, 8, 1.0, 0.0),
}


def build(name: str) -> Any:
    """With random weights in every parameter, so that none can be misplaced unseen."""
    kind, config = PUBLISHED[name][:2]
    torch.manual_seed(0)
    model = getattr(diffusers, kind)(**config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def plain_latents(name: str, model: Any, images: Tensor) -> Tensor:
    if name == "f8d4":
        return model.quant_conv(model.encoder(images))[:, :4]
    return model.encoder(images)[:, :16] if name == "FLUX" else model.encoder(images)


def plain_images(name: str, model: Any, latents: Tensor) -> Tensor:
    if name == "f8d4":
        return model.decoder(model.post_quant_conv(latents))
    return model.decoder(latents)


def as_encoder(vae: TextureEncoder) -> TextureEncoder:
    return vae


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", PUBLISHED)
def test_scaled_and_shifted_there_and_back(name: str, tmp_path: Path) -> None:
    """The parts of the model by hand, and the scale and shift of its own pipelines: (z - shift) scale, z / scale +
    shift. float32, another order of two operations: 1e-5."""
    kind, _, factor, scale, shift = PUBLISHED[name]
    model = build(name)
    model.save_pretrained(tmp_path)
    vae = Autoencoder.load(tmp_path)
    assert load_vae(tmp_path).fingerprint() == vae.fingerprint()
    images = torch.rand(2, 3, 8 * factor, 4 * factor, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = as_encoder(vae).encode(images)
    expected = plain_latents(name, model, images)
    assert latents.shape == (2, vae.channels, 8, 4) and latents.dtype == torch.float32
    torch.testing.assert_close(latents, (expected - shift) * scale, rtol=1e-5, atol=1e-5)
    decoded = as_encoder(vae).decode(latents)
    assert decoded.shape == images.shape
    torch.testing.assert_close(decoded, plain_images(name, model, expected), rtol=1e-4, atol=1e-4)
    assert vae.facts() == {
        "class": kind,
        "factor": factor,
        "channels": model.config.latent_channels,
        "image_channels": 3,
        "scale": scale,
        "shift": shift,
    }
    half = Autoencoder.load(tmp_path, dtype=torch.bfloat16)
    assert half.encode(images).dtype == torch.float32
    for shape in [(1, 3, factor + 1, factor), (1, 1, factor, factor), (3, factor, factor)]:
        with pytest.raises(ValueError, match=f"{kind} encodes"):
            vae.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match=f"{kind} decodes"):
        vae.decode(torch.zeros(1, 3, 2, 2))


def test_old_folders_call_the_attention_otherwise(tmp_path: Path) -> None:
    """stabilityai/sd-vae-ft-mse and its time: query, key, value, proj_attn."""
    model = build("f8d4")
    model.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for key, tensor in load_file(tmp_path / "diffusion_pytorch_model.safetensors").items():
        old_key = key
        for new, name in old.items():
            old_key = old_key.replace(f".attentions.0.{new}.", f".attentions.0.{name}.")
        tensors[old_key] = tensor
    assert any(".query." in key for key in tensors)
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    assert Autoencoder.load(tmp_path).fingerprint() == Autoencoder(model).fingerprint()


def test_the_sd_vae_is_one_of_them(tmp_path: Path) -> None:
    with torch.device("meta"):
        facts = SDVAE(diffusers.AutoencoderKL(**CONFIG)).facts()
    sizes = {"factor": 16, "channels": 32, "image_channels": 3, "scale": 1.0, "shift": 0.0}
    assert facts == {"class": "AutoencoderKL", **sizes}
    with pytest.raises(UserError, match="not a diffusers folder"):
        load_vae(tmp_path)


def _edit(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _without(folder: Path) -> None:
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["quant_conv.bias"]
    save_file(tensors, path, metadata={"format": "pt"})


def _pickle(folder: Path) -> None:
    path = folder / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), folder / "diffusion_pytorch_model.bin")
    path.unlink()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "class": (lambda f: _edit(f, _class_name="AutoencoderKLWan"), "_class_name 'AutoencoderKLWan' is not supported"),
    "no class": (lambda f: (f / "config.json").write_text("{}"), "_class_name None is not supported; known: Autoencod"),
    "classes": (lambda f: _edit(f, _class_name=["AutoencoderKL"]), "_class_name .* is not supported"),
    "groups": (lambda f: _edit(f, norm_num_groups=0), "cannot be read as AutoencoderKL"),
    "no json": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "no config": (lambda f: (f / "config.json").unlink(), r"not a diffusers folder \(config.json is missing\)"),
    "scale": (lambda f: _edit(f, scaling_factor="a"), "scaling_factor 'a' and shift_factor None must be numbers"),
    "zero": (lambda f: _edit(f, scaling_factor=0), "scaling_factor 0 and shift_factor"),
    "shape": (lambda f: _edit(f, latent_channels=5), "cannot be read as AutoencoderKL"),
    "type": (lambda f: _edit(f, layers_per_block="many"), "cannot be read as AutoencoderKL"),
    "missing": (_without, "weight 'quant_conv.bias' is missing"),
    "pickle": (_pickle, r"not a diffusers folder \(diffusion_pytorch_model.safetensors is missing\)"),
    "cut": (
        lambda f: (f / "diffusion_pytorch_model.safetensors").write_bytes(b"\x08" * 100),
        "cannot be read as AutoencoderKL",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_refused(damage: str, tmp_path: Path) -> None:
    assert set(CLASSES) == {kind for kind, *_ in PUBLISHED.values()}
    build("f8d4").save_pretrained(tmp_path)
    change, line = DAMAGES[damage]
    change(tmp_path)
    with pytest.raises(UserError, match=line) as error:
        Autoencoder.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("no_network")
def test_a_folder_in_a_repository_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    entry = tmp_path / "models--black-forest-labs--FLUX"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text("a" * 40)
    build("FLUX").save_pretrained(entry / "snapshots" / ("a" * 40) / "vae")
    assert Autoencoder.load("black-forest-labs/FLUX/vae").shift == 0.1159
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'black-forest-labs/FLUX': cannot get vea/config.json .* download it on a"):
        Autoencoder.load("black-forest-labs/FLUX/vea")
