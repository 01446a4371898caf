"""Whatever a network is told travels through sampling and guidance untouched: dicts, tuples, nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.sample import AutoGuidance, ClassifierFreeGuidance, CombinedGuidance, generate
from lwd.sample.condition import count, first, join, take
from lwd.schedules import Schedule

LAYOUT = Layout([Group("a", 2), Group("b", 1)])
SCHEDULE = Schedule.synchronous(LAYOUT.names)
SEEDS = torch.arange(6)


class Told(NamedTuple):
    text: Tensor
    more: dict[str, Tensor | str]


TOLD = Told(torch.arange(6.0), {"scale": torch.linspace(1, 2, 6)[:, None], "name": "kept"})


def drift(z: Tensor, times: Tensor, told: Told) -> Tensor:
    """A velocity that each sample is told: its text times its scale, so that it ends at noise + text * scale."""
    assert isinstance(told, Told) and told.more["name"] == "kept"
    scale = told.more["scale"]
    assert isinstance(scale, Tensor)
    return (told.text[:, None] * scale).expand(-1, 3)


def still(z: Tensor, times: Tensor, condition: Any) -> Tensor:
    return torch.zeros_like(z)


def moved(model: Any, condition: Any = TOLD, **more: Any) -> Tensor:
    """By how much the samples moved (N, 3)."""
    arguments = {"shape": (3,), "solver": "heun", "steps": 4}
    start = generate(still, SCHEDULE, LAYOUT, None, SEEDS, **arguments).latents  # type: ignore[arg-type]
    return generate(model, SCHEDULE, LAYOUT, condition, SEEDS, **arguments, **more).latents - start  # type: ignore[arg-type]


PATH = TOLD.text * torch.linspace(1, 2, 6)


@pytest.mark.parametrize("batch", [None, 2])
def test_every_sample_is_told_its_own(batch: int | None) -> None:
    # The integral of a constant is exact in any solver; float32 rounding of numbers up to 10.
    torch.testing.assert_close(moved(drift, batch=batch), PATH[:, None].expand(-1, 3), rtol=0, atol=1e-5)


def nothing(told: Told) -> Told:
    return told._replace(text=torch.full_like(told.text, 100.0))


@pytest.mark.parametrize("batch", [None, 4])
def test_guidance_away_from_a_null_condition(batch: int | None) -> None:
    """v + (w - 1) (v - v_null), with v_null = 100 * scale."""
    scale = torch.linspace(1, 2, 6)
    expected = PATH + 0.5 * (PATH - 100 * scale)
    found = moved(drift, guidance=ClassifierFreeGuidance(1.5, nothing), batch=batch)
    torch.testing.assert_close(found, expected[:, None].expand(-1, 3), rtol=1e-5, atol=1e-4)
    with pytest.raises(UserError, match=r"the model has no null_label or drop; .* needs null="):
        moved(drift, guidance=ClassifierFreeGuidance(1.5))


class Dropping(nn.Module):
    """A network that says how its condition is dropped."""

    def forward(self, z: Tensor, times: Tensor, told: Told) -> Tensor:
        return drift(z, times, told)

    def drop(self, told: Told, dropped: Tensor) -> Told:
        return told._replace(text=torch.where(dropped, 100.0, told.text))


def test_a_network_that_drops_by_itself_and_a_weak_one() -> None:
    free = ClassifierFreeGuidance(1.5)
    torch.testing.assert_close(
        moved(Dropping(), guidance=free), moved(drift, guidance=ClassifierFreeGuidance(1.5, nothing)), rtol=0, atol=0
    )
    both = moved(Dropping(), guidance=CombinedGuidance(AutoGuidance(still, 2.0), free))
    expected = 2 * PATH + 0.5 * (PATH - 100 * torch.linspace(1, 2, 6))
    torch.testing.assert_close(both, expected[:, None].expand(-1, 3), rtol=1e-5, atol=1e-4)


def test_nothing_to_be_told() -> None:
    assert torch.equal(
        moved(lambda z, times, condition: torch.ones_like(z) if condition is None else z, None),
        moved(lambda z, times, condition: torch.ones_like(z), torch.zeros(6)),
    )
    with pytest.raises(UserError, match="a condition without tensors cannot be dropped"):
        moved(Dropping(), None, guidance=ClassifierFreeGuidance(1.5))


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(UserError, match=r"a condition of 5 samples, but seeds are \(6,\)"):
        moved(drift, torch.zeros(5))
    with pytest.raises(UserError, match=r"tensors are of \[5, 6\] samples"):
        moved(drift, {"a": torch.zeros(5), "b": torch.zeros(6)})
    with pytest.raises(UserError, match=r"the network returns \(6, 2\) for latents of \(6, 3\)"):
        moved(lambda z, times, condition: z[:, :2])
    with pytest.raises(UserError, match=r"latents of shape \(4,\), but the layout .* has \(3, \.\.\.\)"):
        generate(still, SCHEDULE, LAYOUT, None, SEEDS, shape=(4,))


def test_parts_of_a_condition() -> None:
    rows = torch.tensor([4, 1])
    assert take(TOLD, rows).text.tolist() == [4.0, 1.0]
    joined = join(TOLD, take(TOLD, rows))
    assert count(joined) == 8 and joined.more["name"] == "kept"
    assert count(None) is None and first("text") is None
    assert take([torch.arange(6), None], rows)[0].tolist() == [4, 1]
