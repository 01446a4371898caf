"""Early stopping on hand-made logs of rho, and the parts of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.probe.stopping import EarlyStop, curve_distance, fit_until_stopped
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.progress import forwarding
from lwd.schedules import PolynomialCurve
from lwd.schedules.collapse import Criterion

RULE = EarlyStop(steps=100, burn_in=50, window=10, settled_within=0.005, criterion=Criterion())
STABLE, COLLAPSED = torch.tensor([0.5, -5.0, -5, -5, 0.0]), torch.tensor([-9.0, -9, -9, -9, 3])


def log(*parts: tuple[Tensor, int]) -> dict[str, Tensor]:
    """rho held at each value for so many steps."""
    return {"a": torch.cat([rho.double().expand(count, -1) for rho, count in parts])}


def reason(rho: dict[str, Tensor], rule: EarlyStop = RULE) -> tuple[str, int] | None:
    found = rule.first(rho)
    return None if found is None else (found.reason, found.steps)


@pytest.mark.parametrize(
    ("rho", "expected"),
    [
        (log((STABLE, 15), (COLLAPSED, 85)), ("collapsed", 30)),  # held from 15 on, for all of 20 to 30
        (log((STABLE, 10), (COLLAPSED, 90)), ("collapsed", 20)),
        (log((STABLE, 11), (COLLAPSED, 89)), ("collapsed", 30)),
        (log((COLLAPSED, 9), (STABLE, 91)), ("settled", 70)),  # back again before it had held for a window
        (log((STABLE, 25), (COLLAPSED, 4), (STABLE, 71)), ("settled", 70)),
        (log((STABLE, 100)), ("settled", 70)),  # two windows after burn-in, not before
        (log((STABLE, 69)), None),  # not looked at yet
        (log((STABLE, 70)), ("settled", 70)),
        (log((COLLAPSED, 9)), None),
        (log((STABLE, 95), (COLLAPSED, 5)), ("settled", 70)),  # what comes later changes nothing
    ],
)
def test_when_it_stops(rho: dict[str, Tensor], expected: tuple[str, int] | None) -> None:
    assert reason(rho) == expected


def test_a_curve_that_moves_is_not_settled() -> None:
    """The averaged curve moves by more than 0.005 in every window until the end."""
    drift = STABLE.double() + torch.linspace(0, 3, 100, dtype=torch.float64)[:, None] * torch.tensor([0, 0, 0, 0, 1.0])
    assert reason({"a": drift}) is None
    slow = STABLE.double() + (drift - STABLE.double()) / 30
    assert reason({"a": slow}) == ("settled", 70)
    assert reason({"a": slow, "b": drift}) is None, "every group must have settled"
    assert reason({"a": slow, "b": log((STABLE, 10), (COLLAPSED, 90))["a"]}) == ("collapsed", 20), "one suffices"


def test_the_tolerance_is_on_the_averaged_curve() -> None:
    """rho jumps by an oscillation of zero mean: rho moves all the time, its average does not."""
    sway = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(50)[:, None] * torch.tensor([0, 0, 0, 0, 1.0])
    assert reason({"a": STABLE.double() + sway}) == ("settled", 70)


def test_what_a_stopped_probe_learned() -> None:
    settled = RULE.first(log((COLLAPSED, 5), (STABLE, 45), (STABLE + 1e-3, 50)))
    assert settled is not None and settled.burn_in == 50
    torch.testing.assert_close(settled.rho["a"], STABLE + 1e-3)
    collapsed = RULE.first(log((STABLE, 20), (COLLAPSED, 80)))
    assert collapsed is not None and collapsed.provenance == {"stopped": "collapsed", "steps": 30, "burn_in": 20}
    torch.testing.assert_close(collapsed.rho["a"], COLLAPSED)


def test_settled_takes_two_whole_windows_after_burn_in() -> None:
    assert reason(log((STABLE, 100)), EarlyStop(100, 45, 10, 0.005, Criterion())) == ("settled", 70)


def test_at_its_end_a_probe_is_not_early() -> None:
    late = EarlyStop(100, 89, 10, 0.005, Criterion())
    assert reason(log((STABLE, 90), (COLLAPSED, 10)), late) is None
    assert reason(log((STABLE, 80), (COLLAPSED, 20)), late) == ("collapsed", 90)


def test_looks() -> None:
    assert RULE.looks == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert EarlyStop(25, 10, 10, 0.0, Criterion()).looks == [10, 20, 25]
    assert EarlyStop(5, 2, 10, 0.0, Criterion()).looks == [5]
    assert reason(log((COLLAPSED, 5)), EarlyStop(5, 2, 1, 0.0, Criterion(0.0))) == ("settled", 4)


def test_the_distance_of_curves() -> None:
    """sup |tau - tau^2| = 1/4 at 1/2, and sup |tau - tau^5| = (4/5) 5^(-1/4) at 5^(-1/4), by a grid of 1 001."""
    curve = {
        m: PolynomialCurve.from_rho(torch.tensor([50.0 if i == m else -50.0 for i in range(5)])) for m in (0, 1, 4)
    }
    assert curve_distance(curve[0], curve[1]) == pytest.approx(0.25, abs=1e-6)
    assert curve_distance(curve[0], curve[4]) == pytest.approx(0.8 * 5**-0.25, abs=1e-6)
    assert curve_distance(curve[4], curve[4]) == 0


class FakeEngine:
    """Writes the log that a probe would, and remembers how it was called."""

    is_main = False

    def __init__(self, rho: dict[str, Tensor], resume: bool = True) -> None:
        self.compute = ComputeConfig(resume=resume, progress=False)
        self.rho, self.calls = rho["a"], []

    def fit(self, task: Any, batches: Any, *, steps: int, folder: Path, title: str) -> None:
        found = sorted(int(path.name[5:]) for path in folder.glob("step-*")) if self.compute.resume else []
        first = found[-1] if found else 0
        self.calls.append((first, steps))
        from lwd.runtime.progress import progress_bar

        with progress_bar(title, steps, first, show=False) as bar:
            for _ in range(first, steps):
                bar(1)
        folder.mkdir(exist_ok=True)
        lines = [json.dumps({"step": s, "rho_a": self.rho[s].tolist()}) for s in range(steps)]
        (folder / "trace.jsonl").write_text("\n".join(lines) + "\n")
        (folder / f"step-{steps:08d}").mkdir(exist_ok=True)


def run(engine: FakeEngine, folder: Path, rule: EarlyStop | None = RULE) -> tuple[tuple[str, int] | None, int]:
    counted: list[int] = []
    with forwarding(counted.append):
        found = fit_until_stopped(engine, rule, None, None, steps=100, folder=folder, title="")  # type: ignore[arg-type]
    return found and (found.reason, found.steps), sum(counted)


def test_parts_end_where_the_rule_looks_and_every_step_is_counted_once(tmp_path: Path) -> None:
    engine = FakeEngine(log((STABLE, 10), (COLLAPSED, 90)))
    assert run(engine, tmp_path / "p") == (("collapsed", 20), 100)
    assert engine.calls == [(0, 10), (10, 20)]
    assert run(engine, tmp_path / "p") == (("collapsed", 20), 100), "found again"
    assert engine.calls[2:] == [(20, 20)]
    assert run(engine, tmp_path / "p", None) == (None, 100), "and without a rule it goes on"
    assert engine.calls[3:] == [(20, 100)]
    assert run(engine, tmp_path / "p") == (("collapsed", 20), 100), "with one, what it said before still holds"
    assert engine.calls[4:] == [(100, 100)]


def test_killed_between_two_looks_it_goes_on_and_stops_at_the_same(tmp_path: Path) -> None:
    engine = FakeEngine(log((STABLE, 100)))
    engine.fit(None, None, steps=34, folder=tmp_path / "p", title="")
    assert run(engine, tmp_path / "p") == (("settled", 70), 100)
    assert engine.calls[1:] == [(34, 40), (40, 50), (50, 60), (60, 70)]


def test_afresh_means_once(tmp_path: Path) -> None:
    """compute.resume=false removes what was there before the first part, not what the parts leave."""
    FakeEngine(log((STABLE, 100))).fit(None, None, steps=90, folder=tmp_path / "p", title="")
    engine = FakeEngine(log((STABLE, 10), (COLLAPSED, 90)), resume=False)
    for path in (tmp_path / "p").glob("step-*"):
        path.rmdir()
    assert run(engine, tmp_path / "p")[0] == ("collapsed", 20)
    assert engine.calls == [(0, 10), (10, 20)]


def test_a_log_with_missing_lines_is_an_error(tmp_path: Path) -> None:
    engine = FakeEngine(log((STABLE, 100)))
    engine.fit(None, None, steps=20, folder=tmp_path / "p", title="")
    engine.fit = lambda *a, **k: None  # type: ignore[method-assign, assignment]
    lines = (tmp_path / "p" / "trace.jsonl").read_text().splitlines()
    (tmp_path / "p" / "trace.jsonl").write_text("\n".join(lines[:4] + lines[5:]))
    with pytest.raises(UserError, match="not every step up to 20 has its line"):
        run(engine, tmp_path / "p")
