"""Skipped and clipped steps, against a hand-written AdamW loop and PyTorch's own clipping."""

import pytest
import torch
from torch import nn

from lwd.training.guard import WARM_UP, Guard
from lwd.training.optim import adamw


def network():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def train(gradients, clip=None, spike=None):
    """One AdamW step per given gradient of the weight (the bias gets zeros); returns the model and the log."""
    model = network()
    optimizer = adamw((model, 1e-2))
    guard, log = Guard(model.parameters(), optimizer, clip, spike), []
    for gradient in gradients:
        model.weight.grad, model.bias.grad = gradient.clone(), torch.zeros(2)
        log.append(guard.inspect())
        guard.step()
    return model, optimizer, guard, log


def random_gradients(count, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(2, 3, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_step_without_a_finite_gradient_never_was(bad):
    good = random_gradients(6)
    spoilt = good[0].clone()
    spoilt[1, 2] = bad
    expected, plain, *_ = train(good)
    model, optimizer, guard, log = train([*good[:3], spoilt, spoilt, *good[3:]])
    assert torch.equal(model.weight, expected.weight) and torch.equal(model.bias, expected.bias)
    for ours, theirs in zip(optimizer.state.values(), plain.state.values(), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    assert [int(entry["skipped"]) for entry in log] == [0, 0, 0, 1, 1, 0, 0, 0]
    assert guard.longest_run() == 2 and guard.longest_run() == 0 and float(guard.seen) == 6


def test_without_anything_to_guard_against_it_changes_no_bit():
    gradients = random_gradients(5)
    model, *_ = train(gradients, spike=20.0)
    plain = network()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, betas=(0.9, 0.999), weight_decay=0.0, fused=True)
    for gradient in gradients:
        plain.weight.grad, plain.bias.grad = gradient.clone(), torch.zeros(2)
        optimizer.step()
    assert torch.equal(model.weight, plain.weight)


def test_clipping_is_pytorchs():
    gradients = random_gradients(5, 3.0)
    model, _, _, log = train(gradients, clip=0.5)
    clipped = network()
    optimizer = torch.optim.AdamW(clipped.parameters(), lr=1e-2, betas=(0.9, 0.999), weight_decay=0.0)
    for gradient, entry in zip(gradients, log, strict=True):
        clipped.weight.grad, clipped.bias.grad = gradient.clone(), torch.zeros(2)
        norm = nn.utils.clip_grad_norm_(clipped.parameters(), 0.5)
        torch.testing.assert_close(entry["grad_norm"], norm)
        optimizer.step()
    # PyTorch adds 1e-6 to the norm: relative differences of 1e-6 in the gradients.
    torch.testing.assert_close(model.weight, clipped.weight, rtol=1e-5, atol=1e-7)


def test_a_spike_is_skipped_once_the_usual_norm_is_known():
    gradients = random_gradients(WARM_UP + 3)
    gradients[1] = gradients[1] * 1000  # too early to tell
    gradients[WARM_UP + 1] = gradients[WARM_UP + 1] * 1000
    log = train(gradients, spike=20.0)[3]
    assert [i for i, entry in enumerate(log) if entry["skipped"]] == [WARM_UP + 1]
    assert not any(entry["skipped"] for entry in train(gradients)[3])


def test_what_a_checkpoint_holds_is_enough_to_go_on():
    gradients = random_gradients(20)
    whole = train(gradients, spike=20.0)[2]
    half = train(gradients[:12], spike=20.0)[2]
    other = Guard(network().parameters(), adamw((network(), 1.0)), None, 20.0)
    other.load(half.state())
    assert {k: float(v) for k, v in other.state().items()} == {k: float(v) for k, v in half.state().items()}
    norms = torch.tensor([float(g.norm()) for g in gradients])
    usual = 0.0
    for seen, norm in enumerate(norms.tolist()):  # up to 100 steps: the plain mean
        usual += (norm - usual) / (seen + 1)
    assert abs(float(whole.usual) - usual) < 1e-5
