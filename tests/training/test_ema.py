"""The moving average of weights: its formula, and what it leaves alone."""

import math

import pytest
import torch
from torch import nn

from lwd.training.ema import EMA


class Model(nn.Module):
    """A fixed table, dropout, and weights tied to nothing."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.arange(4.0), requires_grad=False)
        self.linear = nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.drop(self.linear(x + self.table)) * self.scale


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model().double()


def trained(model, steps, seed=1):
    """Change the weights in place, as an optimiser does; yields after each step."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype), alpha=0.1)
        yield {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.9999, 1.0])
def test_is_the_exponentially_weighted_sum_of_all_weights_so_far(model, decay):
    """a_n = d^n w_0 + (1 - d) sum_k d^(n - k) w_k."""
    ema, start = EMA(model, decay), {name: p.detach().clone() for name, p in model.named_parameters()}
    history = []
    for weights in trained(model, 12):
        ema.update()
        history.append(weights)
    for name, average in ema.model.named_parameters():
        expected = decay**12 * start[name]
        for k, weights in enumerate(history, start=1):
            expected = expected + (1 - decay) * decay ** (12 - k) * weights[name]
        # Twelve float64 interpolations of numbers up to 3.
        torch.testing.assert_close(average.detach(), expected, rtol=0, atol=1e-14)


def test_starts_at_the_weights_and_is_a_copy(model):
    ema = EMA(model, 0.9)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert all(torch.equal(t, before[name]) for name, t in ema.model.state_dict().items())
    for _ in trained(model, 3):
        pass
    assert all(torch.equal(t, before[name]) for name, t in ema.model.state_dict().items()), "only update() moves it"
    live = {name: t.clone() for name, t in model.state_dict().items()}
    ema.update()
    assert all(torch.equal(t, live[name]) for name, t in model.state_dict().items()), "update() moves only the average"
    assert not torch.equal(ema.model.linear.weight, before["linear.weight"])


def test_the_average_neither_learns_nor_drops_out(model):
    ema = EMA(model.train(), 0.9)
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert not any(m.training for m in ema.model.modules()) and all(m.training for m in model.modules())
    assert model.linear.weight.requires_grad and not model.table.requires_grad


def test_what_does_not_train_stays_bit_for_bit(model):
    ema = EMA(model, 0.3)
    with torch.no_grad():
        ema.model.table.mul_(1.1)  # as after loading another's table: nothing may pull it back
    kept = ema.model.table.clone()
    for _ in trained(model, 3):
        ema.update()
    assert torch.equal(ema.model.table, kept)


def test_follows_weights_that_a_real_optimiser_moves(model):
    ema, optimizer = EMA(model, 0.5), torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    first = ema.model.linear.weight.clone()
    model(torch.ones(2, 4, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    ema.update()
    torch.testing.assert_close(ema.model.linear.weight, (first + model.linear.weight.detach()) / 2, rtol=0, atol=1e-15)


def test_in_single_precision_small_steps_are_not_lost():
    """With decay 0.9999 an update is 1e-4 of the difference: 1000 of them must add up."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    ema = EMA(model, 0.9999)
    nn.init.constant_(model.weight, 2.0)
    for _ in range(1000):
        ema.update()
    # 1000 roundings of 2^-24 of a number below 2, in the worst case all one way: 1.2e-4.
    assert float(ema.model.weight) == pytest.approx(2 - 0.9999**1000, abs=1.2e-4)


def test_the_drift_is_the_relative_distance_over_all_that_moves(model):
    average = EMA(model, 0.5)
    assert average.drift() == 0
    with torch.no_grad():
        model.scale += 1.0
        model.linear.bias -= 2.0
    moving = [p.flatten() for p in (model.linear.weight, model.linear.bias, model.scale)]
    away = math.sqrt(1.0 + 3 * 2.0**2)
    assert average.drift().item() == pytest.approx(away / torch.cat(moving).norm().item(), rel=1e-12)
    average.update()
    assert average.drift().item() == pytest.approx(away / 2 / torch.cat(moving).norm().item(), rel=1e-12)
