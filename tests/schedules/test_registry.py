"""Curves in files and averages: the registry, for every family and a user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, Family, SineCurve, every_family

from lwd.errors import UserError
from lwd.schedules import Curve, IdentityCurve, Schedule
from lwd.schedules.registry import _CLASSES

GRID = torch.linspace(0, 1, 65)


@every_family
def test_a_schedule_saves_and_loads(family: Family, tmp_path: Path) -> None:
    for seed in range(3):
        schedule = Schedule({"a": family.drawn(seed, 7.0), "b": IdentityCurve()}, {"lambda": 0.04})
        schedule.save(tmp_path / "schedule.json")
        again = Schedule.load(tmp_path / "schedule.json")
        assert type(again["a"]) is family.cls and again.hash() == schedule.hash()
        assert all(torch.equal(x, y) for x, y in zip(schedule(GRID), again(GRID), strict=True))
        assert torch.equal(again["a"].parameter_vector(), schedule["a"].parameter_vector())
        assert again.learned == schedule.learned == ("a",) and not any(p.requires_grad for p in again.parameters())


@every_family
def test_a_changed_parameter_changes_the_hash(family: Family) -> None:
    curve = family.drawn(0)
    vector = curve.parameter_vector()
    names = set()
    for i in range(len(vector)):
        changed = vector.clone()
        changed[i] = torch.nextafter(vector[i], torch.tensor(9.0))
        names.add(Schedule({"a": curve.with_parameters(changed)}).hash())
    assert len(names | {Schedule({"a": curve}).hash()}) == len(vector) + 1


@every_family
def test_a_malformed_file_is_one_line(family: Family, tmp_path: Path) -> None:
    """Every parameter and setting missing, of text, null, and every parameter of another shape or not finite."""
    curve = family.drawn(0)
    made = Schedule({"a": curve})
    parameters = [name for name, _ in curve.named_parameters()]
    for key in (*parameters, *curve.settings):
        numbers = ([0.0] * 40, float("nan"), 10**400, [float("inf")]) if key in parameters else ()
        for value in ("missing", "text", None, *numbers):
            data = json.loads(made.to_json())
            data["groups"]["a"].pop(key) if value == "missing" else data["groups"]["a"].update({key: value})
            with pytest.raises(UserError) as caught:
                Schedule.from_dict(data, "s.json")
            message = str(caught.value)
            if "were altered" not in message:  # a setting the class has no objection to
                assert message.startswith(f"s.json: groups.a: malformed {curve.kind} curve (") and "\n" not in message


@every_family
def test_schedules_average_by_their_parameters(family: Family) -> None:
    schedule = Schedule.learnable(["a", "b", "c"], "b", family.cls.kind, **family.settings)
    assert schedule.learned == ("a", "c") and len(list(schedule.parameters())) > 0
    assert schedule.requires_grad_(False).learned == ("a", "c")
    drawn = [torch.stack([family.drawn(10 * i + j).parameter_vector() for j in range(2)]) for i in range(3)]
    mean = torch.stack(drawn).mean(0)
    averaged = schedule.with_parameters({"a": mean[0], "c": mean[1]})
    for j, name in enumerate(("a", "c")):
        assert torch.equal(averaged.parameter_vectors()[name], mean[j])
        for got, wanted in zip(averaged[name](GRID), family.at(mean[j])(GRID), strict=True):
            assert torch.equal(got, wanted)
    assert not any(p.requires_grad for p in averaged.parameters())
    start = schedule.parameter_vectors()
    assert torch.equal(start["a"], family.new().parameter_vector()), "the copy shares nothing"


@every_family
def test_the_vector_must_fit(family: Family) -> None:
    with pytest.raises(ValueError, match="parameters"):
        family.new().with_parameters(torch.zeros(77))


def test_the_curve_of_the_documentation_is_the_one_tested_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lwd.schedules.registry._CLASSES", dict(_CLASSES))
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    code = next(block.partition("```")[0] for block in text.split("```python\n")[1:] if "SineCurve" in block)
    space: dict[str, Any] = {"Curve": Curve, "torch": torch, "nn": torch.nn, "__name__": __name__}
    exec(code, space)
    shown, tested = (cls().with_parameters(torch.tensor([0.7])) for cls in (space["SineCurve"], SineCurve))
    assert all(torch.equal(x, y) for x, y in zip(shown(GRID), tested(GRID), strict=True))
    made = Schedule({"a": shown})
    assert Schedule.from_dict(made.to_dict(), "here").hash() == made.hash()


def test_a_kind_is_taken_once() -> None:
    with pytest.raises(ValueError, match=r"'polynomial' of .*Mine is taken by lwd\.schedules\.polynomial\.PolynomialC"):
        type("Mine", (Curve,), {"kind": "polynomial"})
    assert Schedule.learnable(["a", "b"], "b")["a"].kind == "polynomial"


def test_the_same_class_may_be_defined_again() -> None:
    """As a notebook's cell that is run twice does."""
    first, second = (type("Again", (SineCurve,), {"kind": "tests.again"}) for _ in range(2))
    made = Schedule({"a": first()})
    assert type(Schedule.from_dict(made.to_dict(), "here")["a"]) is second


def test_a_subclass_without_a_kind_of_its_own_is_not_saved_as_another() -> None:
    class Special(SineCurve):
        pass

    with pytest.raises(ValueError, match="Special cannot be saved"):
        Schedule({"a": Special()}).to_dict()


def test_families_of_a_schedule() -> None:
    kinds = [Schedule.learnable(["a", "b"], "a", one.cls.kind, **one.settings)["b"].kind for one in FAMILIES.values()]
    assert kinds == [one.cls.kind for one in FAMILIES.values()]
    for family, settings, words in (
        (
            "sline",
            {},
            "unknown curve kind 'sline'; known: convex-spline, identity, offset, polynomial, power, power-of-time, ",
        ),
        ("identity", {}, "nothing to learn"),
        ("power", {"degree": 4}, "no setting degree; it has none"),
        ("convex-spline", {"degree": 4, "bins": 3}, "no setting degree; it has bins"),
    ):
        with pytest.raises(UserError, match=words):
            Schedule.learnable(["a", "b"], "a", family, **settings)
    assert Schedule.synchronous("ab").learned == Schedule.offset("ab", "a").learned == ()


@pytest.mark.parametrize("name", ["convex-spline", "rational-quadratic"])
def test_bins_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match="bins must be"):
        Schedule.learnable("ab", "a", name, bins=0)
