"""The sweep: which probes it runs, what it chooses and writes, on stubs; then early stopping and resuming for real."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lwd.config import parse
from lwd.errors import Preempted, UserError
from lwd.models import training_flops
from lwd.probe.outcome import Outcome
from lwd.probe.stopping import EarlyStop
from lwd.runtime.checkpoint import find_checkpoints
from lwd.schedules import PolynomialCurve, Schedule
from lwd.schedules.collapse import Criterion
from lwd.stages.experiment import Experiment
from lwd.stages.probe import SweepSettings, on_screen, sweep
from lwd.stages.probe.run import run as real_run
from lwd.stages.train import main_flops

COLLAPSED, STABLE = [-9.0, -9, -9, -9, 3], [0.0, -3, -3, -3, 1]
MODULE = sys.modules["lwd.stages.probe.sweep"]


class Stub:
    """`lwd.probe.run` of another world: probes collapse below a threshold; an early verdict may be wrong."""

    def __init__(self, threshold: float, early: float | None = None, spread: float = 0.0) -> None:
        self.threshold, self.early, self.spread = threshold, threshold if early is None else early, spread
        self.calls: list[tuple[float, int, bool]] = []

    def __call__(self, config: Experiment, folder: Path, early: EarlyStop | None) -> Schedule:
        weight, seed = config.probe.kinetic_weight, config.seed
        self.calls.append((weight, seed, early is None))
        threshold = self.threshold if early is None else self.early
        collapsed = weight < threshold + self.spread * seed
        made = Schedule.learnable(config.layout.names, config.leader, degree=4)
        for name in made.names:
            curve = made[name]
            if isinstance(curve, PolynomialCurve):
                with torch.no_grad():
                    curve.rho.copy_(torch.tensor(COLLAPSED if collapsed else STABLE) + 0.1 * seed)
        stopped = {} if early is None else {"stopped": "collapsed" if collapsed else "settled"}
        steps = config.probe.steps if early is None else config.probe.steps // (4 if collapsed else 2)
        made.provenance = {"lambda": weight, "seed": seed, "steps": steps} | stopped
        made.save(folder / "schedule.json")
        return made


@pytest.fixture
def stub(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Stub, Experiment]]:
    """A stub in the probe's place, and the experiment with the given sweep settings."""

    def make(threshold: float, settings: dict[str, Any], **more: Any) -> tuple[Stub, Experiment]:
        made = Stub(threshold, **more)
        monkeypatch.setattr(MODULE, "run", made)
        config = parse(SweepSettings, {"processes": 1, **settings}, "test")
        return made, experiment.model_copy(update={"sweep": config})

    return make


def table(config: Experiment) -> dict[str, Any]:
    return json.loads((config.output / "sweep" / "table.json").read_text())


def test_the_weakest_stable_of_a_list(stub) -> None:
    probes, config = stub(0.03, {"kinetic_weights": [0.01, 0.04, 0.1]})
    rows, chosen = sweep(config)
    assert [(row.kinetic_weight, row.collapsed) for row in rows] == [(0.01, True), (0.04, False), (0.1, False)]
    assert chosen.provenance["lambda"] == 0.04 and "stopped" not in chosen.provenance
    assert Schedule.load(config.output / "schedule.json").hash() == chosen.hash()
    assert (config.output / "sweep" / "curves.png").is_file()
    # The chosen one goes on to its full length, the others do not.
    assert probes.calls == [(0.01, 0, False), (0.04, 0, False), (0.1, 0, False), (0.04, 0, True)]
    assert [(row.steps, row.stopped) for row in rows] == [(3, "collapsed"), (12, None), (6, "settled")]


def test_without_early_stopping_every_probe_is_full(stub) -> None:
    probes, config = stub(0.03, {"kinetic_weights": [0.01, 0.04], "early_stop": False})
    rows, _ = sweep(config)
    assert probes.calls == [(0.01, 0, True), (0.04, 0, True)] and {row.steps for row in rows} == {12}


def test_all_collapsed_is_an_error_that_leaves_the_table_and_no_schedule(stub) -> None:
    _, config = stub(0.03, {"kinetic_weights": [0.01, 0.04]})
    sweep(config)
    _, config = stub(9.0, {"kinetic_weights": [0.01, 0.04]})
    with pytest.raises(UserError, match=r"every lambda up to 0\.04 collapsed; add larger sweep\.kinetic_weights"):
        sweep(config)
    assert table(config)["chosen"] is None and not (config.output / "schedule.json").exists()
    _, config = stub(9.0, {"kinetic_weights": "auto", "expansions": 0})
    with pytest.raises(UserError, match=r"every lambda up to 0\.1 collapsed; raise sweep\.high"):
        sweep(config)


def test_auto_finds_the_threshold_and_again_from_what_is_there(stub) -> None:
    probes, config = stub(0.0417, {"kinetic_weights": "auto"})
    rows, chosen = sweep(config)
    assert 1 <= chosen.provenance["lambda"] / 0.0417 < 1.25
    assert len(rows) <= 6 and len(probes.calls) == len(rows) + 1, "2 + log2 of 11 cells, and one goes on"
    again, config = stub(0.0417, {"kinetic_weights": "auto"})
    assert sweep(config)[1].hash() == chosen.hash() and again.calls == probes.calls


def test_a_verdict_that_the_full_length_takes_back(stub) -> None:
    """Early on it looks stable from 0.02, in the end from 0.05: the search goes on above."""
    probes, config = stub(0.05, {"kinetic_weights": "auto"}, early=0.02)
    rows, chosen = sweep(config)
    found = chosen.provenance["lambda"]
    assert found >= 0.05
    full = [weight for weight, _, full in probes.calls if full]
    assert full == sorted(full) and full[-1] == found and len(full) > 1
    assert {row.kinetic_weight for row in rows if row.collapsed} >= set(full[:-1])
    assert all(row.collapsed == (row.kinetic_weight < found) for row in rows)


def test_several_seeds(stub) -> None:
    """Seed 1 needs 0.05 and seed 0 only 0.02: stable means all, and the schedule is the first seed's."""
    probes, config = stub(0.02, {"kinetic_weights": [0.01, 0.03, 0.06], "seeds": [1, 0]}, spread=0.03)
    rows, chosen = sweep(config)
    verdicts = {(row.kinetic_weight, row.seed): row.collapsed for row in rows}
    assert verdicts == {
        (0.01, 0): True, (0.01, 1): True, (0.03, 0): False, (0.03, 1): True, (0.06, 0): False, (0.06, 1): False,
    }  # fmt: skip
    assert (chosen.provenance["lambda"], chosen.provenance["seed"]) == (0.06, 1)
    assert probes.calls[-2:] == [(0.06, 1, True), (0.06, 0, True)], "all of the chosen lambda's go on"
    written = table(config)
    assert [row["folder"] for row in written["rows"][:2]] == ["lambda-0.01", "lambda-0.01-seed1"]
    assert [one["stable"] for one in written["lambdas"]] == [False, False, True]
    tau = torch.linspace(0, 1, 1001, dtype=torch.float64)
    curves = [PolynomialCurve.from_rho(torch.tensor(STABLE) + 0.1 * seed)(tau)[0].detach() for seed in (0, 1)]
    expected = float((curves[0] - curves[1]).abs().max())
    assert written["lambdas"][2]["disagreement"] == pytest.approx(expected, abs=1e-9) and expected > 0.001
    assert "lambda 0.06: seeds differ by 0.00" in on_screen(written)


def test_the_cost(stub) -> None:
    _, config = stub(0.03, {"kinetic_weights": [0.01, 0.04, 0.1]})
    sweep(config, main_flops(config))
    shards = config.shards("train", features=True)
    per_image = training_flops(config.model.build(config.layout, shards.shape))
    cost = table(config)["cost"]
    assert (cost["steps"], cost["planned"]) == (3 + 12 + 6, 36)
    assert cost["flops"] == 21 * config.probe.batch * per_image
    train = config.model.build(config.layout, shards.shape, shards.feature_dim)
    main = config.train.steps * config.train.batch * training_flops(train, project=True)
    assert cost["share"] == pytest.approx(cost["flops"] / main)
    last = on_screen(table(config)).splitlines()[-1]
    assert last.startswith("cost: 21 of 36 steps, ") and last.endswith(f"{100 * cost['share']:.0f} % of the main run")
    sweep(config)
    assert table(config)["cost"]["share"] is None and "main run" not in on_screen(table(config))


def test_the_screen_shows_every_probe(stub) -> None:
    _, config = stub(0.03, {"kinetic_weights": [0.01, 0.04, 0.1]})
    sweep(config)
    lines = on_screen(table(config)).splitlines()
    assert lines[0].split() == ["lambda", "seed", "distance", "mass", "on", "a_M", "steps"]
    assert lines[1].split()[:2] == ["0.01", "0"] and lines[1].endswith("3  collapsed, ended early")
    assert lines[2].endswith("12  chosen") and lines[3].endswith("6  stable, settled early")


def test_a_probe_that_was_ended_for_it_has_collapsed_whatever_its_average() -> None:
    made = Schedule.learnable(["a", "b"], "b")
    assert not Outcome.of(0.1, 0, made, "", Criterion()).collapse.collapsed
    made.provenance["stopped"] = "settled"
    assert not Outcome.of(0.1, 0, made, "", Criterion()).collapse.collapsed
    made.provenance["stopped"] = "collapsed"
    assert Outcome.of(0.1, 0, made, "", Criterion()).collapse.collapsed


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"kinetic_weights": "automatic"}, "kinetic_weights: must be auto or a list of numbers, not 'automatic'"),
        ({"kinetic_weights": [0.2, 0.1]}, "must be increasing"),
        ({"kinetic_weights": []}, "must be increasing"),
        ({"kinetic_weights": [0.1, float("inf")]}, "kinetic_weights"),
        ({"low": 0.2, "high": 0.1}, r"low 0\.2 must be below high 0\.1"),
        ({"high": float("inf")}, "a finite number"),
        ({"resolution": 1.0}, "resolution"),
        ({"seeds": [1, 1]}, r"seeds \[1, 1\] repeats itself"),
        ({"mass_above": 1.5}, "mass_above"),
        ({"window": 0}, "window"),
    ],
)
def test_bad_settings(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        parse(SweepSettings, settings, "test")
    assert "\n" not in str(caught.value)


def test_one_group_has_nothing_to_learn(experiment: Experiment) -> None:
    groups = tuple(group for group in experiment.groups if group.name == experiment.leader)
    with pytest.raises(UserError, match="no learned group"):
        sweep(experiment.model_copy(update={"groups": groups}))


def real(experiment: Experiment, output: Path, **settings: Any) -> Experiment:
    """A real sweep of tiny probes that settle after 9 of 12 steps, having moved by less than 0.5."""
    values = {"kinetic_weights": [0.02, 0.2], "processes": 1, "window": 3, "settled_within": 0.5, **settings}
    probe = experiment.probe.model_copy(update={"burn_in": 2, "rho_lr": 0.3})
    return experiment.model_copy(
        update={"sweep": parse(SweepSettings, values, "test"), "output": output, "probe": probe}
    )


def files(folder: Path) -> dict[str, bytes]:
    """What a sweep leaves, but for the logs' times and versions."""
    paths = [folder / "schedule.json", folder / "sweep" / "table.json", *folder.glob("sweep/*/schedule.json")]
    paths += folder.glob("sweep/*/step-*/*.safetensors")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_chosen_schedule_does_not_depend_on_early_stopping(experiment: Experiment, tmp_path: Path) -> None:
    rows, chosen = sweep(real(experiment, tmp_path / "early"))
    full, expected = sweep(real(experiment, tmp_path / "full", early_stop=False))
    assert [row.steps for row in rows] == [12, 9] and [row.steps for row in full] == [12, 12]
    assert chosen.to_dict() == expected.to_dict(), "bit for bit, provenance included"
    a, b = (tmp_path / name / "sweep" / "lambda-0.02" for name in ("early", "full"))
    for path in sorted(find_checkpoints(b)[12].glob("*.safetensors")):
        assert (find_checkpoints(a)[12] / path.name).read_bytes() == path.read_bytes(), path.name


def test_killed_and_run_again_it_is_the_same_sweep(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"kinetic_weights": "auto", "low": 0.02, "high": 0.2, "resolution": 4, "expansions": 1}
    sweep(real(experiment, tmp_path / "whole", **settings))
    expected = files(tmp_path / "whole")
    killed = real(experiment, tmp_path / "killed", **settings)
    calls = 0

    def dies(*arguments: Any) -> Schedule:
        nonlocal calls
        calls += 1
        if calls in (3, 7):
            raise Preempted("killed")
        return real_run(*arguments)

    monkeypatch.setattr(MODULE, "run", dies)
    deaths = 0
    for _ in range(3):
        try:
            sweep(killed)
            break
        except Preempted:
            deaths += 1
            # A kill in the middle of a probe: its newest part is lost.
            newest = max((tmp_path / "killed" / "sweep").glob("lambda-*/step-*"), key=lambda path: path.stat().st_mtime)
            shutil.rmtree(newest)
    assert deaths == 2
    assert files(tmp_path / "killed") == expected


def test_probes_too_short_to_move_choose_no_lambda(experiment: Experiment, tmp_path: Path) -> None:
    """Under auto an error that names the remedy; of a list a word in the table, and the schedule all the same."""
    short = experiment.probe.model_copy(update={"rho_lr": 1e-5})
    settings = {"low": 0.02, "high": 0.2}
    auto = real(experiment, tmp_path / "auto", kinetic_weights="auto", **settings)
    with pytest.raises(UserError, match=r"sweep: no probe's curve has left where it began.*12 steps at rho_lr 1e-05"):
        sweep(auto.model_copy(update={"probe": short}))
    assert not (auto.output / "schedule.json").exists()
    rows = json.loads((auto.output / "sweep" / "table.json").read_text())["rows"]
    assert [row["still"] for row in rows] == [True, True], "it stops when all say so"
    listed = real(experiment, tmp_path / "listed").model_copy(update={"probe": short})
    rows, _ = sweep(listed)
    assert all(row.still for row in rows) and (listed.output / "schedule.json").exists()
    assert "where it began" in on_screen(json.loads((listed.output / "sweep" / "table.json").read_text()))
