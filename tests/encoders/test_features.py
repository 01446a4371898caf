import pytest
import torch
from torch.nn import functional as F

from lwd.datasets.builtin import digits
from lwd.encoders.small import SmallCNN, SmallViT, distort, train_classifier
from lwd.runtime.checkpoint import load_module, save_tensors
from lwd.runtime.seeding import Stream, seeded


def build(kind, seed=0, **settings):
    with seeded(Stream.INITIALISE, seed):
        return kind(**settings)


@torch.no_grad()
def accuracy(model, split):
    images, labels = digits(split)
    return float((model(images).argmax(1) == labels).double().mean())


@pytest.fixture(scope="module")
def vit():
    """A SmallViT after a quarter of its usual training."""
    model = build(SmallViT)
    train_classifier(model, *digits("train"), steps=100, seed=0)
    return model


def test_accuracy_after_a_small_budget(vit):
    assert accuracy(vit, "heldout") > 0.93


def test_the_judge_reaches_98_percent():
    judge = build(SmallCNN, seed=1)
    train_classifier(judge, *digits("train"), steps=150, distortion=0.1, seed=1)
    assert accuracy(judge, "heldout") > 0.98
    features = judge.pooled(digits("heldout")[0]).detach().double()
    assert features.shape == (445, 32)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(features.T))
    assert eigenvalues[-1] / eigenvalues[0] < 1e5  # 445 images give a covariance that can be inverted


def test_shapes(vit):
    images = digits("heldout")[0][:5]
    assert vit(images).shape == (5, 10)
    assert vit.pooled(images).shape == (5, 64)
    assert vit.patch_features(images).shape == (5, 64, 4, 4)
    larger = SmallViT(width=32, depth=1, classes=3, heads=2, image_channels=3, image_size=12)
    assert larger.patch_features(torch.zeros(2, 3, 12, 12)).shape == (2, 32, 6, 6)
    judge = SmallCNN(channels=16, classes=3, image_channels=3)
    assert judge(torch.zeros(2, 3, 28, 28)).shape == (2, 3)
    assert judge.pooled(torch.zeros(2, 3, 28, 28)).shape == (2, 16)
    with pytest.raises(ValueError, match="do not tile"):
        SmallViT(image_size=9)


def test_logits_are_the_head_of_the_pooled_features(vit):
    images = digits("heldout")[0][:5]
    judge = build(SmallCNN).eval()
    for model in (vit, judge):
        torch.testing.assert_close(model(images), model.head(model.pooled(images)))


def test_every_patch_feature_depends_on_every_pixel(vit):
    images = digits("heldout")[0][:4].clone().requires_grad_()
    features = vit.patch_features(images)
    for i in range(4):
        for j in range(4):
            (gradient,) = torch.autograd.grad(features[:, :, i, j].square().sum(), images, retain_graph=True)
            assert (gradient.abs().amax(dim=0) > 0).all(), (i, j)


def test_patch_features_differ_between_positions_yet_agree_on_the_image(vit):
    features = vit.patch_features(digits("heldout")[0]).detach()
    centred = features - features.mean(dim=(0, 2, 3), keepdim=True)
    shared = centred.mean(dim=(2, 3)).square().mean() / centred.square().mean()
    assert 0.2 < shared < 0.95


def test_patch_features_are_normalised(vit):
    images = digits("heldout")[0][:5]
    plain = F.layer_norm(torch.randn(5, 16, 64), (64,))
    features = vit.patch_features(images).flatten(2).transpose(1, 2)
    undone = (features - vit.norm.bias) / vit.norm.weight
    torch.testing.assert_close(undone.mean(-1), plain.mean(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(undone.var(-1), plain.var(-1), atol=1e-2, rtol=0)


@pytest.mark.parametrize("kind", [SmallViT, SmallCNN])
def test_one_seed_one_result_whatever_the_global_generator(kind):
    images, labels = (part[:200] for part in digits("train"))
    states = []
    for global_seed, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(global_seed)
        model = build(kind, seed=0)
        before = torch.random.get_rng_state()
        train_classifier(model, images, labels, steps=5, batch=32, distortion=0.1, seed=seed)
        assert torch.equal(before, torch.random.get_rng_state())
        states.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


def test_the_number_of_threads_changes_nothing():
    images, labels = (part[:200] for part in digits("train"))
    threads, states = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        model = build(SmallViT)
        train_classifier(model, images, labels, steps=5)
        assert torch.get_num_threads() == count
        states.append(model.state_dict())
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_progress_and_mode():
    images, labels = (part[:64] for part in digits("train"))
    model, calls = build(SmallCNN), []
    train_classifier(model, images, labels, steps=3, batch=16, progress=calls.append)
    assert calls == [1, 1, 1]
    assert not model.training


@pytest.mark.parametrize("kind", [SmallViT, SmallCNN])
def test_file_round_trip(kind, tmp_path):
    images, labels = (part[:64] for part in digits("train"))
    model = build(kind, seed=0)
    train_classifier(model, images, labels, steps=2, batch=16)
    save_tensors(tmp_path / "model.safetensors", model.state_dict())
    again = build(kind, seed=1).eval()
    load_module(again, tmp_path / "model.safetensors")
    assert torch.equal(again(images), model(images))


def test_distortion_against_the_identity_and_a_whole_pixel_shift(monkeypatch):
    images = digits("heldout")[0][:8]
    torch.testing.assert_close(distort(images, 0.0, seed=0, step=0), images, atol=1e-5, rtol=0)
    change = torch.full((8, 2, 3), 0.5)
    change[:, 0, 2] = 0.5 + 1 / 8  # x translation of a quarter of half an image: one pixel, at strength 1
    monkeypatch.setattr("lwd.encoders.small.uniform", lambda *_: change)
    shifted = torch.full_like(images, -1)
    shifted[..., :-1] = images[..., 1:]
    torch.testing.assert_close(distort(images, 1.0, seed=0, step=0), shifted, atol=1e-5, rtol=0)


def test_distortion_is_a_function_of_seed_and_step():
    images = digits("heldout")[0][:8]
    first = distort(images, 0.1, seed=3, step=7)
    assert torch.equal(first, distort(images, 0.1, seed=3, step=7))
    assert not torch.equal(first, distort(images, 0.1, seed=3, step=8))
    assert torch.equal(first[:4], distort(images[:4], 0.1, seed=3, step=7))
    assert first.min() >= -1 - 1e-6 and first.max() <= 1 + 1e-6
