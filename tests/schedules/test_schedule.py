"""Schedules of one to three groups, and schedule.json."""

import json

import pytest
import torch

from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.schedules import IdentityCurve, OffsetCurve, PolynomialCurve, Schedule

TAU = torch.linspace(0, 1, 17)


def learned(seed=0, names=("tex", "sem"), **provenance):
    generator = torch.Generator().manual_seed(seed)
    curves = {name: PolynomialCurve.from_rho(3 * torch.randn(5, generator=generator)) for name in names[:-1]}
    return Schedule({**curves, names[-1]: IdentityCurve()}, provenance)


SCHEDULES = {
    "one group": Schedule({"z": PolynomialCurve(2)}),
    "learned": learned(),
    "three groups": learned(1, ("tex", "depth", "sem")),
    "offset": Schedule.offset(["tex", "sem"], "sem"),
    "offset of three": Schedule.offset(["a", "b", "c"], leader="a", delta=0.5),
    "synchronous": Schedule.synchronous(["tex", "sem"]),
    "learnable": Schedule.learnable(["sem", "tex"], leader="sem", degree=3),
    "extreme rho": Schedule({"a": PolynomialCurve.from_rho(torch.tensor([-1e4, 3e-39, 1e4])), "b": IdentityCurve()}),
}


@pytest.mark.parametrize("schedule", [pytest.param(s, id=name) for name, s in SCHEDULES.items()])
def test_columns_are_the_curves_in_order(schedule):
    times, rates = schedule(TAU)
    assert times.shape == rates.shape == (len(TAU), len(schedule.names))
    for g, name in enumerate(schedule.names):
        t, rate = schedule[name](TAU)
        assert torch.equal(times[:, g], t) and torch.equal(rates[:, g], rate)
    assert (times[0] == 0).all() and (times[-1] == 1).all()


def test_synchronous_moves_all_groups_together():
    times, rates = Schedule.synchronous(["a", "b", "c"])(TAU)
    assert torch.equal(times, TAU[:, None].expand(-1, 3)) and (rates == 1).all()


def test_offset_is_sfds_schedule():
    times, rates = Schedule.offset(["tex", "sem"], leader="sem", delta=0.3)(torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(times, torch.tensor([[0.0, 0.13], [0.35, 0.65], [0.87, 1.0]]))
    torch.testing.assert_close(rates, torch.tensor([[0.0, 1.3], [1.3, 1.3], [1.3, 0.0]]))


def test_the_leader_may_be_any_group():
    schedule = Schedule.offset(["a", "b", "c"], leader="b")
    assert [schedule[name].leads for name in "abc"] == [False, True, False]
    schedule = Schedule.learnable(["a", "b", "c"], leader="a", degree=2)
    assert [schedule[name].kind for name in "abc"] == ["identity", "polynomial", "polynomial"]
    assert [p.shape for p in schedule.parameters()] == [(3,), (3,)]
    for make in (Schedule.offset, Schedule.learnable):
        with pytest.raises(ValueError, match="leader 'd'"):
            make(["a", "b"], leader="d")


def test_kinks_are_those_of_all_groups_sorted():
    assert Schedule.offset(["tex", "sem"], "sem", delta=0.3).kinks == pytest.approx((0.3 / 1.3, 1 / 1.3))
    assert Schedule.offset(["a", "b", "c"], leader="a", delta=3.0).kinks == pytest.approx((0.25, 0.75))
    assert learned().kinks == ()


def test_a_schedule_without_groups_is_refused():
    with pytest.raises(ValueError, match="at least one group"):
        Schedule({})


def test_gradients_reach_every_curve():
    schedule = Schedule.learnable(["a", "b", "c"], leader="b")
    times, rates = schedule(TAU)
    (times.sum() + rates.square().sum()).backward()
    assert all(p.grad.abs().min() > 0 for p in schedule.parameters())
    assert len(list(schedule.parameters())) == 2


# schedule.json


@pytest.mark.parametrize("schedule", [pytest.param(s, id=name) for name, s in SCHEDULES.items()])
def test_save_and_load_give_the_same_numbers_back(schedule, tmp_path):
    path = tmp_path / "folder" / "schedule.json"
    schedule.save(path)
    again = Schedule.load(str(path))
    assert again.names == schedule.names
    for before, after in zip(schedule(TAU), again(TAU), strict=True):
        assert torch.equal(before, after)
    for before, after in zip(schedule.parameters(), again.parameters(), strict=True):
        assert torch.equal(before, after)
    assert again.hash() == schedule.hash()
    assert again.kinks == schedule.kinks
    assert list(tmp_path.rglob("*.tmp")) == []


def test_the_file_is_readable_and_keeps_the_provenance(tmp_path):
    schedule = learned(kinetic_weight=0.04, note="ü")
    schedule.save(tmp_path / "s.json")
    data = json.loads((tmp_path / "s.json").read_text())
    assert data["format"] == "lwd.schedule/1"
    assert list(data["groups"]) == ["tex", "sem"]
    assert data["groups"]["tex"]["coefficients"] == pytest.approx(schedule["tex"].coefficients().tolist())
    assert data["hash"] == schedule.hash()
    assert Schedule.load(tmp_path / "s.json").provenance == {"kinetic_weight": 0.04, "note": "ü"}


def test_the_hash_names_the_curves_and_nothing_else():
    schedule = learned()
    assert len(schedule.hash()) == 12 and int(schedule.hash(), 16) >= 0
    assert learned(steps=7).hash() == schedule.hash()
    others = [
        learned(1),
        Schedule({"sem": schedule["sem"], "tex": schedule["tex"]}),
        Schedule({"a": schedule["tex"], "sem": schedule["sem"]}),
        Schedule.synchronous(["tex", "sem"]),
        Schedule.offset(["tex", "sem"], "sem"),
        Schedule.offset(["tex", "sem"], "sem", delta=0.31),
        Schedule.offset(["tex", "sem"], leader="tex"),
    ]
    assert len({s.hash() for s in (schedule, *others)}) == len(others) + 1


def test_the_smallest_change_of_rho_changes_the_hash():
    schedule = learned()
    before = schedule.hash()
    with torch.no_grad():
        schedule["tex"].rho[2] = torch.nextafter(schedule["tex"].rho[2], torch.tensor(9.0))
    assert schedule.hash() != before


def test_the_hash_does_not_depend_on_the_machines_rounding(monkeypatch):
    """float64 log, exp and softmax differ by an ulp between AVX2, AVX-512 and CUDA; rho does not."""
    schedule = learned()
    before = schedule.hash()
    exact = PolynomialCurve.coefficients
    monkeypatch.setattr(PolynomialCurve, "coefficients", lambda self: exact(self) * (1 + 2e-16) + 1e-16)
    assert schedule.hash() == before


def test_check_accepts_the_layout_it_was_learned_for():
    layout = Layout([Group("tex", 32), Group("sem", 16)])
    learned().check(layout, "here")
    learned(layout=layout.to_list()).check(Layout([Group("tex", 32, 3.0), Group("sem", 16)]), "here")


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout([Group("sem", 16), Group("tex", 32)]), ["['tex', 'sem']", "['sem', 'tex']"]),
        (Layout([Group("tex", 32)]), ["['tex', 'sem']", "['tex']"]),
        (Layout([Group("tex", 32), Group("sem", 8)]), ["[tex:32, sem:16]", "[tex:32, sem:8]"]),
    ],
)
def test_check_refuses_another_layout_in_one_line(layout, words):
    schedule = learned(layout=[{"name": "tex", "channels": 32}, {"name": "sem", "channels": 16}])
    with pytest.raises(UserError) as caught:
        schedule.check(layout, "model.pt")
    message = str(caught.value)
    assert message.startswith("model.pt: ") and "\n" not in message
    assert all(word in message for word in words)


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        Schedule.load(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert all(word in message for word in words), message


def write(path, **changes):
    """A sound file, with ``groups.tex`` and top-level keys changed."""
    learned(layout=[{"name": "tex", "channels": 3}]).save(path)
    data = json.loads(path.read_text())
    data["groups"]["tex"].update(changes.pop("tex", {}))
    data.update(changes)
    path.write_text(json.dumps(data))
    return path


def test_an_unchanged_file_loads(tmp_path):
    Schedule.load(write(tmp_path / "s.json"))


def test_a_missing_file(tmp_path):
    refused(tmp_path / "none.json", "no such file")


@pytest.mark.parametrize("text", [b"", b"{", b"{'format': 1}", b"\xff\xfe\x00", b"NaN NaN"])
def test_bad_json(tmp_path, text):
    (tmp_path / "s.json").write_bytes(text)
    refused(tmp_path / "s.json", "not valid JSON")


@pytest.mark.parametrize("data", [[], 3, None, "text", {}, {"format": "lwd.schedule/2", "groups": {}}])
def test_a_file_of_another_format(tmp_path, data):
    (tmp_path / "s.json").write_text(json.dumps(data))
    refused(tmp_path / "s.json", "not a schedule file", "lwd.schedule/1")


@pytest.mark.parametrize("groups", [None, {}, [], ["tex"], "tex"])
def test_no_groups(tmp_path, groups):
    refused(write(tmp_path / "s.json", groups=groups), "not a schedule file", "groups")


@pytest.mark.parametrize("curve", [{"kind": "spline"}, {"kind": ["identity"]}, {}, None, 3, "identity"])
def test_an_unknown_curve(tmp_path, curve):
    refused(
        write(tmp_path / "s.json", groups={"tex": curve}),
        "groups.tex",
        "unknown curve kind",
        "; known: convex-spline, identity, offset",
        "import the module",
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"rho": [float("nan")] * 5}, id="NaN rho"),
        pytest.param({"rho": [float("inf"), 0, 0, 0, 0]}, id="infinite rho"),
        pytest.param({"rho": [1e300, 0, 0, 0, 0]}, id="rho beyond float32"),
        pytest.param({"rho": [0.0] * 5}, id="another rho"),
        pytest.param({"rho": [0.0] * 4}, id="fewer rho"),
        pytest.param({"rho": []}, id="no rho"),
        pytest.param({"rho": 3.0}, id="one number"),
        pytest.param({"rho": ["a"] * 5}, id="text"),
        pytest.param({"rho": None}, id="null"),
        pytest.param({"coefficients": [0.0] * 5}, id="zero coefficients"),
        pytest.param({"coefficients": [float("nan")] * 5}, id="NaN coefficients"),
        pytest.param({"coefficients": [1.0]}, id="fewer coefficients"),
        pytest.param({"coefficients": "none"}, id="coefficients of text"),
    ],
)
def test_a_polynomial_that_does_not_hold_together(tmp_path, change):
    refused(write(tmp_path / "s.json", tex=change), "groups.tex", "malformed polynomial curve")


@pytest.mark.parametrize("key", ["rho", "coefficients"])
def test_a_polynomial_with_a_key_missing(tmp_path, key):
    path = write(tmp_path / "s.json")
    data = json.loads(path.read_text())
    del data["groups"]["tex"][key]
    path.write_text(json.dumps(data))
    refused(path, "groups.tex", "malformed polynomial curve", key)


def test_one_coefficient_edited_by_hand(tmp_path):
    path = write(tmp_path / "s.json")
    data = json.loads(path.read_text())
    data["groups"]["tex"]["coefficients"][1] += 0.01
    path.write_text(json.dumps(data))
    refused(path, "'coefficients' are not those of 'rho'")


@pytest.mark.parametrize(
    "curve",
    [
        {"kind": "offset", "delta": -0.3, "leads": True},
        {"kind": "offset", "delta": float("nan"), "leads": True},
        {"kind": "offset", "delta": "wide", "leads": True},
        {"kind": "offset", "leads": True},
        {"kind": "offset", "delta": 0.3},
    ],
)
def test_a_malformed_offset(tmp_path, curve):
    refused(write(tmp_path / "s.json", groups={"tex": curve}), "groups.tex", "malformed offset curve")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"groups": {"tex": {"kind": "offset", "delta": float("inf"), "leads": True}}}, id="delta inf"),
        pytest.param({"groups": {"tex": {"kind": "offset", "delta": 0.3, "leads": "false"}}}, id="leads is text"),
        pytest.param({"provenance": [1, 2]}, id="provenance is a list"),
        pytest.param({"provenance": "text"}, id="provenance is text"),
        pytest.param({"tex": {"rho": [10**400, 0, 0, 0, 0]}}, id="huge integer"),
        pytest.param({"tex": {"degree": 7}}, id="another degree"),
        pytest.param({"hash": "000000000000"}, id="another hash"),
    ],
)
def test_other_altered_files(tmp_path, changes):
    refused(write(tmp_path / "s.json", **changes))


@pytest.mark.parametrize("known", [[1], [{"name": "tex"}], "tex"])
def test_check_survives_a_malformed_provenance(known):
    with pytest.raises(UserError):
        learned(layout=known).check(Layout([Group("tex", 1), Group("sem", 1)]), "here")


def test_offset_curves_come_back_with_their_roles(tmp_path):
    Schedule.offset(["a", "b"], leader="a", delta=0.7).save(tmp_path / "s.json")
    again = Schedule.load(tmp_path / "s.json")
    assert all(isinstance(again[name], OffsetCurve) and again[name].delta == 0.7 for name in "ab")
    assert again["a"].leads is True and again["b"].leads is False
