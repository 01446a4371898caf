"""SD-VAE f16d32 at its full shape, against an independent CompVis AutoencoderKL with random weights."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from compvis import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from lwd.data.stats import save_stats
from lwd.encoders.decoder import carry, load_decoder
from lwd.encoders.texture import TextureEncoder
from lwd.encoders.vae import SDVAE, load_vae
from lwd.encoders.vae.keys import key_map
from lwd.errors import UserError
from lwd.files import write_json
from lwd.groups import Group, Layout


@pytest.fixture(scope="module")
def oracle() -> AutoencoderKL:
    """Norms with random affine parts, and attention sharp enough to matter: no weight's misplacement goes unseen."""
    torch.manual_seed(0)
    model = AutoencoderKL().eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.add_(0.3 * torch.randn_like(parameter))
        elif ".q.weight" in name or ".k.weight" in name:
            parameter.mul_(2)
    return model


@pytest.fixture(scope="module")
def released(oracle: AutoencoderKL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as published: under `state_dict`, with the training loss's networks in it."""
    path = tmp_path_factory.mktemp("vae") / "ldm.ckpt"
    loss = {"loss.logvar": torch.zeros(()), "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4)}
    torch.save({"state_dict": {**oracle.state_dict(), **loss}, "epoch": 50}, path)
    return path


@pytest.fixture(scope="module")
def vae(released: Path) -> SDVAE:
    return SDVAE.load(released)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def as_encoder(vae: TextureEncoder) -> TextureEncoder:
    return vae


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_encodes_and_decodes_as_the_original(oracle: AutoencoderKL, vae: SDVAE, images: Tensor) -> None:
    """Of the largest value, 2e-5 in float32 (either implementation is 1e-5 from float64), and 1e-6 in float64, where
    what remains is the result's rounding to float32."""
    original64, vae64 = copy.deepcopy(oracle).double(), SDVAE(copy.deepcopy(vae.model).double())
    for original, encoder, x, tolerance in (
        (oracle, vae, images, 2e-5),
        (original64, vae64, images[:1, :, :32, :32].double(), 1e-6),
    ):
        mean = original.moments(x)[:, :32]
        latents = as_encoder(encoder).encode(x)
        assert latents.shape == (len(x), 32, x.shape[2] // 16, x.shape[3] // 16)
        assert latents.dtype == torch.float32
        assert relative(latents, mean) < tolerance
        decoded = as_encoder(encoder).decode(latents)
        assert decoded.shape == x.shape
        assert relative(decoded, original.decode(latents.to(x.dtype))) < tolerance


def test_attention_counts_in_the_comparison(oracle: AutoencoderKL, vae: SDVAE, images: Tensor) -> None:
    """Without any one of the seven attention blocks the result differs by far more than the tolerance above."""
    mean = vae.encode(images[:1])
    decoded = vae.decode(mean)
    blocks = {name: module for name, module in oracle.named_modules() if type(module).__name__ == "AttnBlock"}
    assert len(blocks) == 7
    for name, block in blocks.items():
        kept = block.proj_out.weight.clone()
        block.proj_out.weight.zero_()
        result = oracle.moments(images[:1])[:, :32] if name.startswith("encoder") else oracle.decode(mean)
        block.proj_out.weight.copy_(kept)
        assert relative(result, mean if name.startswith("encoder") else decoded) > 1e-3, name


def test_the_reverse_conversion_is_bit_identical(oracle: AutoencoderKL, vae: SDVAE) -> None:
    back = vae.released_state_dict()
    assert back.keys() == oracle.state_dict().keys() == key_map().keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in oracle.state_dict().items())


def test_size_of_the_released_file(vae: SDVAE) -> None:
    """Published: 349 MB. LPIPS's VGG-16 (14.71M) with its linear heads and the PatchGAN (2.77M) make up the rest."""
    ours = sum(tensor.numel() for tensor in vae.released_state_dict().values())
    assert (ours + 14.71e6 + 2.77e6) * 4 / 1e6 == pytest.approx(349, abs=1)


@pytest.mark.usefixtures("no_network")
def test_a_released_model_carries_a_local_vae(released: Path, vae: SDVAE, tmp_path: Path) -> None:
    """It decodes alike without the file that the data named, of which nothing is told; encoded in bfloat16, too."""
    half = SDVAE.load(released, dtype=torch.bfloat16).fingerprint()
    texture = {"group": "tex", "encoder": "sd-vae-f16d32", "path": str(released), "weights_sha256": half}
    parts = {"recipe": {}, "splits": {}, "texture": texture, "judge": None}
    manifest = {"format": "lwd.data/1", "fingerprint": "x", **parts}
    write_json(tmp_path / "data" / "manifest.json", manifest)
    layout = Layout([Group("tex", 32)])
    save_stats(tmp_path / "data" / "train" / "latents_stats.pt", torch.zeros(1, 32, 1, 1), torch.ones(1, 32, 1, 1))
    carry(tmp_path / "data", layout, tmp_path / "carried")
    assert str(released) not in (tmp_path / "carried" / "manifest.json").read_text()
    latents = torch.randn(1, 32, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_decoder(tmp_path / "carried").decode(latents, layout), vae.decode(latents))


@pytest.mark.usefixtures("no_network")
def test_other_files_hold_the_same(oracle: AutoencoderKL, vae: SDVAE, images: Tensor, tmp_path: Path) -> None:
    """A bare state dict, safetensors and a diffusers folder give equal latents; a local path needs no network."""
    torch.save(oracle.state_dict(), tmp_path / "bare.pt")
    save_file(oracle.state_dict(), tmp_path / "vae.safetensors")
    vae.model.save_pretrained(tmp_path / "folder")
    expected, fingerprint = vae.encode(images[:1]), vae.fingerprint()
    for source in (tmp_path / "bare.pt", str(tmp_path / "vae.safetensors"), tmp_path / "folder"):
        loaded = SDVAE.load(source)
        assert torch.equal(loaded.encode(images[:1]), expected)
        assert loaded.fingerprint() == fingerprint


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("said", "scale", "shift"), [({}, 1.0, 0.0), ({"scaling_factor": 0.5, "shift_factor": 0.1}, 0.5, 0.1)]
)
def test_a_folder_has_one_scale(
    said: dict[str, float],
    scale: float,
    shift: float,
    oracle: AutoencoderKL,
    vae: SDVAE,
    images: Tensor,
    tmp_path: Path,
) -> None:
    """By either name: encoded as `sd-vae-f16d32`, decoded as `sample.decoder.path` does, whatever diffusers takes a
    config.json for that says nothing. The original's latents are 2e-5 from these (above)."""
    vae.model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["scaling_factor"], config["shift_factor"]
    (tmp_path / "config.json").write_text(json.dumps(config | said))
    encoder, decoder, x = SDVAE.load(tmp_path), load_vae(tmp_path), images[:1, :, :32, :32]
    mean = oracle.moments(x)[:, :32]
    for loaded in (encoder, decoder):
        assert relative(loaded.encode(x), (mean - shift) * scale) < 2e-5
        assert (loaded.model.config["scaling_factor"], loaded.facts()["shift"]) == (scale, shift)
    assert relative(decoder.decode(encoder.encode(x)), oracle.decode(mean)) < 2e-5


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("said", [{}, {"scale": 1.0, "shift": 0.0}])
def test_data_from_before_a_folder_had_a_scale(said: dict[str, float], vae: SDVAE, tmp_path: Path) -> None:
    """`sd-vae-f16d32` once left out what the folder's config.json said, and manifests said no scale."""
    vae.model.save_pretrained(tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.18215}))
    texture = {"group": "tex", "encoder": "sd-vae-f16d32", "path": str(tmp_path / "vae"), **said}
    parts = {"recipe": {}, "splits": {}, "texture": texture, "judge": None}
    write_json(tmp_path / "manifest.json", {"format": "lwd.data/1", "fingerprint": "x", **parts})
    latents = torch.randn(1, 32, 2, 2)
    decoder = load_decoder(tmp_path)
    assert torch.equal(decoder.decode(latents, Layout([Group("tex", 32)])), vae.decode(latents))


def test_bfloat16(released: Path, vae: SDVAE, images: Tensor) -> None:
    """bfloat16 keeps 8 bits (0.4 % a rounding); through the whole encoder 5 % in the root mean square is allowed."""
    half = SDVAE.load(released, dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16
    part = images[:1, :, :32, :32]  # enough for every layer; CPUs are slow at bfloat16
    exact, rough = vae.encode(part), half.encode(part)
    assert rough.dtype == torch.float32
    assert 1e-4 < ((rough - exact).norm() / exact.norm()).item() < 0.05
    assert half.decode(exact).dtype == torch.float32
    assert half.fingerprint() != vae.fingerprint()


def damaged(state: dict[str, Tensor], fault: str) -> object:
    state = dict(state)
    if fault == "missing":
        del state["decoder.up.4.attn.2.proj_out.bias"]
    elif fault == "unknown":
        state["encoder.down.3.attn.0.q.weight"] = torch.zeros(1)
    elif fault == "shape":
        state["quant_conv.weight"] = torch.zeros(8, 8, 1, 1)
    elif fault == "linear":
        state["encoder.mid.attn_1.q.weight"] = torch.zeros(512, 512)
    elif fault == "number":
        state["encoder.conv_in.bias"] = 3
    return [1, 2] if fault == "list" else state


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("missing", r"bad.ckpt: key 'decoder.up.4.attn.2.proj_out.bias' is missing"),
        ("unknown", r"bad.ckpt: unknown key 'encoder.down.3.attn.0.q.weight'"),
        ("shape", r"'quant_conv.weight' is \(8, 8, 1, 1\), f16d32 needs a tensor of shape \(64, 64, 1, 1\)"),
        ("linear", r"'encoder.mid.attn_1.q.weight' is \(512, 512\), .* \(512, 512, 1, 1\)"),
        ("number", r"'encoder.conv_in.bias' is int"),
        ("list", r"bad.ckpt: holds list, not a state dict"),
    ],
)
def test_foreign_checkpoints_are_refused(fault: str, line: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = AutoencoderKL().state_dict()
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in shapes.items()}
    torch.save(damaged(state, fault), tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=line) as error:
        SDVAE.load(tmp_path / "bad.ckpt")
    assert "\n" not in str(error.value)


def test_missing_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for source, line in [
        (tmp_path / "no.ckpt", "no.ckpt: no such file or folder"),
        ("./no/such/vae.ckpt", "no such file or folder"),
        ("vae.ckpt", "no such file or folder, nor a Hub id"),
        ("owner/name", "'owner/name': cannot get config.json .* download it on a machine with a network"),
        ("owner/name/sub/vae.ckpt", "'owner/name': cannot get sub/vae.ckpt"),
        ("hustvl/va-vae-imagenet256-experimental-variants/ldm-imagenet256-f16d32-50ep.ckpt", "cannot get ldm-imagenet"),
        (tmp_path, "not a diffusers folder"),
    ]:
        with pytest.raises(UserError, match=line) as error:
            SDVAE.load(source)
        assert "\n" not in str(error.value)


def test_wrong_shapes(vae: SDVAE) -> None:
    for shape in [(1, 3, 40, 64), (1, 1, 64, 64), (3, 64, 64)]:
        with pytest.raises(ValueError, match="SD-VAE encodes"):
            vae.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match="SD-VAE decodes"):
        vae.decode(torch.zeros(1, 16, 4, 4))


def test_the_library_is_imported_late_and_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, lwd.encoders.vae, lwd.encoders.vision; print({'diffusers', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"diffusers cannot be imported .*pip install 'lwd\[encoders\]'"):
        SDVAE.random()
