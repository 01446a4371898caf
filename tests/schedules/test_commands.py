"""`lwd schedule`: what it prints and writes, and one line for what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.schedules import PolynomialCurve, Schedule

NAMES = ("--groups", "a,b", "--leader", "b")


@pytest.fixture
def run() -> Callable[..., Result]:
    return lambda *words: CliRunner().invoke(app, ["schedule", *map(str, words)])


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    Schedule.learnable(("a", "b"), "b").save(tmp_path / "schedule.json")
    return tmp_path / "schedule.json"


def test_show(run: Callable[..., Result], tmp_path: Path) -> None:
    png = tmp_path / "curves.png"
    result = run("show", "offset:0.3", *NAMES, "--png", png)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["tau", "a", "b"] and len(lines) == 1 + 11 + 2 + 2
    assert [float(x) for x in lines[6].split()] == pytest.approx([0.5, 0.35, 0.65])  # max(1.3/2 - 0.3, 0), 1.3/2
    assert "origin not recorded" in lines[-2] and png.read_bytes().startswith(b"\x89PNG")


def test_names_and_files_take_what_they_need_from_each_other(run: Callable[..., Result], learned: Path) -> None:
    """A learned file says its groups and its leader: the one curve that is fixed."""
    result = run("compare", learned, "power:2")
    assert result.exit_code == 0 and "at equal times of b" in result.stdout
    # near the identity (within 0.01) against its square, 1/4 away
    assert float(result.stdout.split()[3]) == pytest.approx(0.25, abs=0.01)
    assert run("show", "synchronous", "--groups", "a").exit_code == 0


def test_fit_writes_what_it_says(run: Callable[..., Result], learned: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.json"
    result = run("fit", "offset:0.3", "--family", "convex-spline", "--size", 4, *NAMES, "--out", out)
    assert result.exit_code == 0, result.output
    schedule = Schedule.load(out)
    assert schedule.learned == ("a",) and schedule.origin == "convex-spline fitted to offset:0.3"
    assert schedule["a"].identity()["bins"] == 4 and "at most" in result.stdout
    again = run("fit", "offset:0.3", *NAMES, "--out", out)
    assert again.exit_code == 2 and "exists already" in again.stderr

    (tmp_path / "p.csv").write_text("tau,t\n" + "".join(f"{x / 10},{x**2 / 100}\n" for x in range(11)))
    result = run("fit", tmp_path / "p.csv", *NAMES, "--out", tmp_path / "square.json")
    assert result.exit_code == 0
    curve = Schedule.load(tmp_path / "square.json")["a"]
    assert isinstance(curve, PolynomialCurve) and curve.mixture()[1] > 0.99  # tau^2


def test_save_then_is_the_schedule_that_the_name_is(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("save", "power:2", tmp_path / "schedule.json", *NAMES)
    saved = Schedule.load(tmp_path / "schedule.json")
    assert result.exit_code == 0 and saved.origin == "power:2, by lwd schedule save" and saved.hash() in result.stdout
    assert saved.names == ("a", "b") and saved["b"].kind == "identity" and saved["a"].formula() == "τ^2"
    assert run("save", "power:2", tmp_path / "schedule.json", *NAMES).exit_code == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("show", "bogus"), "'bogus' is no schedule"),
        (("show", "learned"), "'learned' names no file"),
        (("show", "offset:0.3"), "a name says nothing of groups; give --groups"),
        (("show", "offset:0.3", "--groups", "a,b"), "--leader: give one of a, b"),
        (("show", "offset:0.3", "--groups", "a,b", "--leader", "c"), "--leader c: no such group: give one of a, b"),
        (("show", "offset:0.3", "--groups", "a,a", "--leader", "a"), "names of groups, each once"),
        (("show", "none.json"), "none.json: no such file"),
        (("show", "FILE", "--groups", "b,a"), "has groups a,b, not b,a"),
        (("compare", "synchronous", "synchronous", "--groups", "a,b"), "--leader: give one of a, b"),
        (("fit", "p.csv"), "points say nothing of groups"),
        (("fit", "p.csv", *NAMES), "p.csv: No such file"),
        (("fit", "FILE", "--family", "spline"), "unknown curve kind 'spline'"),
        (("fit", "FILE", "--size", "0"), "degree must be at least 1"),
    ],
)
def test_one_line_for_what_cannot_be(
    run: Callable[..., Result], learned: Path, words: tuple[str, ...], line: str
) -> None:
    result = run(*(str(learned) if word == "FILE" else word for word in words))
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and line in result.stderr
    assert result.stderr.startswith("lwd: ")
