"""SemVAE against PyTorch's own transformer layer, closed forms, and hand-written checkpoints in the release's names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from lwd.encoders.posterior import Posterior
from lwd.encoders.semvae import SemVAE, load_released_semvae, load_semvae
from lwd.errors import UserError
from lwd.stages.semvae import semvae_loss

D, K, DEPTH, HEADS = 12, 3, 2, 4


@pytest.fixture
def model() -> SemVAE:
    torch.manual_seed(0)
    model = SemVAE(D, K, DEPTH, HEADS)
    for parameter in model.parameters():  # so that no bias or gain has a neutral value
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(5, D, 2, 3, generator=torch.Generator().manual_seed(1))


def released_shapes(d: int, k: int, depth: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a released checkpoint, as in the public source of SFD's and SeFi's SemVAE."""
    shapes: dict[str, tuple[int, ...]] = {}
    for half, inputs, outputs in (("encoder", d, 2 * k), ("decoder", k, d)):
        shapes |= {f"{half}.0.weight": (d, inputs), f"{half}.0.bias": (d,)}
        for block in range(1, depth + 1):
            at = f"{half}.{block}"
            shapes |= {f"{at}.norm1.weight": (d,), f"{at}.norm1.bias": (d,)}
            shapes |= {f"{at}.attn.in_proj_weight": (3 * d, d), f"{at}.attn.in_proj_bias": (3 * d,)}
            shapes |= {f"{at}.attn.out_proj.weight": (d, d), f"{at}.attn.out_proj.bias": (d,)}
            shapes |= {f"{at}.norm2.weight": (d,), f"{at}.norm2.bias": (d,)}
            shapes |= {f"{at}.mlp.0.weight": (4 * d, d), f"{at}.mlp.0.bias": (4 * d,)}
            shapes |= {f"{at}.mlp.2.weight": (d, 4 * d), f"{at}.mlp.2.bias": (d,)}
        shapes |= {f"{half}.{depth + 1}.weight": (d,), f"{half}.{depth + 1}.bias": (d,)}
        shapes |= {f"{half}.{depth + 2}.weight": (outputs, d), f"{half}.{depth + 2}.bias": (outputs,)}
    return shapes


@pytest.mark.parametrize(("d", "encoder_millions", "millions"), [(768, 29, 58), (1024, 51, 103)])
def test_parameter_count_and_names_at_full_size(d: int, encoder_millions: int, millions: int) -> None:
    with torch.device("meta"):
        model = SemVAE(d)
    block = (2 * d) + (3 * d * d + 3 * d) + (d * d + d) + (2 * d) + (4 * d * d + 4 * d) + (4 * d * d + d)
    encoder = (d * d + d) + 4 * block + 2 * d + (d * 32 + 32)
    decoder = (16 * d + d) + 4 * block + 2 * d + (d * d + d)
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.parameters()) == encoder + decoder
    assert (round(encoder / 1e6), round((encoder + decoder) / 1e6)) == (encoder_millions, millions)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == released_shapes(d, 16, 4)


def reference(stack: nn.Sequential) -> nn.Sequential:
    """The same network out of `torch.nn.TransformerEncoderLayer`."""
    layers: list[nn.Module] = [stack[0]]
    for block in list(stack)[1:-2]:
        layer = nn.TransformerEncoderLayer(D, HEADS, 4 * D, 0.0, "gelu", batch_first=True, norm_first=True)
        names = {"attn.": "self_attn.", "mlp.0": "linear1", "mlp.2": "linear2"}
        state = block.state_dict()
        for old, new in names.items():
            state = {key.replace(old, new): value for key, value in state.items()}
        layer.load_state_dict(state)
        layers.append(layer)
    return nn.Sequential(*layers, *list(stack)[-2:]).eval()


def test_against_pytorchs_own_transformer_layer(model: SemVAE, features: Tensor) -> None:
    tokens = features.permute(0, 2, 3, 1).reshape(5, 6, D)
    with torch.no_grad():
        expected = reference(model.encoder)(tokens).reshape(5, 2, 3, 2 * K).permute(0, 3, 1, 2)
        posterior = model.posterior(features)
        # Float32 rounding of values of order 1 through two blocks; measured 2e-6.
        torch.testing.assert_close(torch.cat(posterior, 1), expected, atol=2e-5, rtol=0)
        latents = model.encode(features)
        expected = reference(model.decoder)(latents.permute(0, 2, 3, 1).reshape(5, 6, K))
        expected = expected.reshape(5, 2, 3, D).permute(0, 3, 1, 2)
        torch.testing.assert_close(model.decode(latents), expected, atol=2e-5, rtol=0)
    assert torch.equal(latents, posterior.mean) and latents.shape == (5, K, 2, 3)


def test_positions_are_a_set_and_see_each_other(model: SemVAE, features: Tensor) -> None:
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled = features.flatten(2)[:, :, order].view_as(features)
    with torch.no_grad():
        latents, expected = model.encode(shuffled), model.encode(features).flatten(2)[:, :, order]
        torch.testing.assert_close(latents.flatten(2), expected, atol=1e-5, rtol=0)
        changed = features.clone()
        changed[:, :, 0, 0] += 1
        moved = (model.encode(changed) - model.encode(features)).abs().amax((0, 1))
    assert (moved > 1e-3).all(), "every position attends to the one that changed"


@pytest.mark.parametrize(("bias", "expected"), [(1e4, 20.0), (-1e4, -30.0)])
def test_the_log_variance_is_clamped(model: SemVAE, features: Tensor, bias: float, expected: float) -> None:
    model.encoder[-1].bias.data[K:] = bias
    posterior = model.posterior(features)
    assert (posterior.logvar == expected).all() and torch.isfinite(posterior.kl()).all()
    assert posterior.mean.abs().max() < 100


def test_kl_and_its_gradient_in_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(4, K, 2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    logvar = torch.randn(4, K, 2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    kl = Posterior(mean, logvar).kl()
    prior = Independent(Normal(torch.zeros_like(mean), 1.0), 3)
    expected = kl_divergence(Independent(Normal(mean, (0.5 * logvar).exp()), 3), prior)
    torch.testing.assert_close(kl, expected)  # float64 defaults
    kl.sum().backward()
    torch.testing.assert_close(mean.grad, mean.detach())
    torch.testing.assert_close(logvar.grad, 0.5 * (logvar.detach().exp() - 1))
    assert (Posterior(torch.zeros(1, K, 2, 3), torch.zeros(1, K, 2, 3)).kl() == 0).all()


def test_loss_terms_are_their_formulae(features: Tensor) -> None:
    generator = torch.Generator().manual_seed(2)
    reconstruction = features + torch.randn(features.shape, generator=generator)
    posterior = Posterior(*torch.randn(2, 5, K, 2, 3, generator=generator))
    weights = {"mse_weight": 0.5, "cosine_weight": 2.0, "l1_weight": 3.0, "kl_weight": 0.1}
    terms = semvae_loss(reconstruction, features, posterior, **weights)
    r, x, m, v = (t.double().numpy() for t in (reconstruction, features, posterior.mean, posterior.logvar))
    cosine = (r * x).sum(1) / np.sqrt((r * r).sum(1) * (x * x).sum(1))  # along channels, one per position
    kl = sum(0.5 * (m[n] ** 2 + np.exp(v[n]) - 1 - v[n]).sum() for n in range(5)) / 5
    expected = [((r - x) ** 2).mean(), 1 - cosine.mean(), np.abs(r - x).mean(), kl]
    np.testing.assert_allclose([float(t) for t in terms[1:]], expected, rtol=1e-5)
    assert float(terms.total) == pytest.approx(np.dot([0.5, 2.0, 3.0, 0.1], expected), rel=1e-5)
    plain = semvae_loss(reconstruction, features, posterior)
    assert float(plain.total) == pytest.approx(expected[0] + expected[1] + 1e-7 * expected[3], rel=1e-5)


def test_a_model_folder_reads_back(model: SemVAE, features: Tensor, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model/config.json").read_text()) == {
        "feature_dim": D, "channels": K, "depth": DEPTH, "heads": HEADS,
    }  # fmt: skip
    for again in (load_semvae(tmp_path / "model"), SemVAE.from_pretrained(tmp_path / "model")):
        assert not again.training
        with torch.no_grad():
            assert torch.equal(again.decode(again.encode(features)), model.decode(model.encode(features)))


def test_unfit_model_folders(model: SemVAE, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_semvae(tmp_path)
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    for change, message in (({"channels": 4}, "has shape"), ({"depth": 3}, "missing"), ({"heads": 5}, "5 heads")):
        config.write_text(json.dumps({"feature_dim": D, "channels": K, "depth": DEPTH, "heads": HEADS} | change))
        with pytest.raises(UserError, match=message):
            load_semvae(tmp_path)
    config.write_text('{"layout": []}')
    with pytest.raises(UserError, match="not a SemVAE's config"):
        load_semvae(tmp_path)


def weights_of(d: int = 16, k: int = 3, depth: int = 2) -> dict[str, Tensor]:
    """A hand-written released state dict of random numbers."""
    generator = torch.Generator().manual_seed(4)
    return {key: 0.3 * torch.randn(s, generator=generator) for key, s in released_shapes(d, k, depth).items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(("config", "heads"), [(None, 8), ("model:\n  params: {transformer_heads: 4}\n", 4)])
def test_a_released_checkpoint_loads(prefix: str, config: str | None, heads: int, tmp_path: Path) -> None:
    weights = weights_of()
    payload = {"iteration": 3, "model_state_dict": {prefix + key: value for key, value in weights.items()}}
    torch.save(payload | ({} if config is None else {"config": config}), tmp_path / "semvae.pt")
    model = load_released_semvae(tmp_path / "semvae.pt")
    assert (model.feature_dim, model.channels, len(model.encoder)) == (16, 3, 5) and not model.training
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert model.encoder[1].attn.num_heads == heads
    assert load_released_semvae(tmp_path / "semvae.pt", heads=2).decoder[2].attn.num_heads == 2
    model.save_pretrained(tmp_path / "mine")
    assert load_semvae(tmp_path / "mine").encoder[1].attn.num_heads == heads


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.replace("mlp.2", "mlp.3"): value for key, value in weights.items()}


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"ema": {}}, "no 'model_state_dict' of tensors"),
        ([1, 2], "no 'model_state_dict' of tensors"),
        ({"model_state_dict": {"encoder.0.weight": "x"}}, "no 'model_state_dict' of tensors"),
        ({"model_state_dict": {}}, "no matrix 'encoder.0.weight'"),
        ({"model_state_dict": {"encoder.0.weight": torch.ones(2)}}, "no matrix 'encoder.0.weight'"),
        ({"model_state_dict": renamed(weights_of())}, "key 'encoder.1.mlp.2.weight' is missing"),
        ({"model_state_dict": weights_of() | {"head.weight": torch.ones(2)}}, "unknown key 'head.weight'"),
        ({"model_state_dict": weights_of() | {"decoder.3.bias": torch.ones(2)}}, "'decoder.3.bias' has shape"),
        ({"model_state_dict": weights_of(d=12)}, "does not divide over 8 heads"),
        ({"model_state_dict": {k: v for k, v in weights_of().items() if "attn" not in k}}, "not a SemVAE checkpoint"),
    ],
)
def test_unfit_checkpoints_are_one_line(payload: object, message: str, tmp_path: Path) -> None:
    torch.save(payload, tmp_path / "semvae.pt")
    with pytest.raises(UserError, match=message) as error:
        load_released_semvae(tmp_path / "semvae.pt")
    assert str(error.value).startswith(f"{tmp_path / 'semvae.pt'}: ") and "\n" not in str(error.value)


def test_sizes_that_do_not_fit(model: SemVAE) -> None:
    for sizes, message in (((12, 3, 2, 5), "5 heads"), ((12, 0, 2, 4), "channels"), ((12, 3, 0, 4), "depth")):
        with pytest.raises(ValueError, match=message):
            SemVAE(*sizes)
    with pytest.raises(ValueError, match="of 12 dimensions"):
        model.encode(torch.zeros(1, D + 1, 2, 2))
