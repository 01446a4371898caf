"""The live screen: hand-made logs, as they grow, break off and are replaced."""

import io
import json
import math

import pytest
from rich.console import Console
from typer.testing import CliRunner

import lwd.stages.watch.screen as live
from lwd.cli.main import app
from lwd.errors import UserError
from lwd.stages.watch import Run, sparkline, watch
from lwd.training.log_file import Tail


def training_line(step, loss=2.0, **more):
    return {"step": step, "loss": loss, "flow": loss / 2, "flow_tex": 0.25, "grad_norm": 3.5, "skipped": 0.0, **more}


BLOCK = {
    "loss_by_time_tex": [0.5, None, 1.0, 0.25, 2.0],
    "loss_by_time_tex_count": [4, 0, 4, 4, 4],
    "images_per_s": 32.0,
    "tflops": 123.0,
    "data_wait": 0.017,
    "memory_gib": 61.5,
    "ema_drift": 0.042,
}


def write(path, lines, end="\n"):
    path.write_text("\n".join(json.dumps(line) for line in lines) + end)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text("train: {steps: 7202, batch: 16}\nprobe: {steps: 4, batch: 16}\n")
    return tmp_path


def screen(folder, **options):
    console = Console(file=io.StringIO(), width=110)
    watch(folder, console=console, **options)
    return console.file.getvalue()


def test_everything_of_a_training_run_is_on_the_screen(folder):
    write(folder / "trace.jsonl", [training_line(3600, 4.0), training_line(3601, 2.0, **BLOCK)])
    shown = screen(folder, once=True)
    assert "step 3,602 of 7,202" in shown
    assert "30 min left" in shown  # 3600 steps of 16 images at 32 images/s are 1800 s
    assert len(shown.splitlines()) <= 24 and str(folder.name) in shown.replace("\n", "")
    rows = [line.strip("│ ").split() for line in shown.splitlines()]
    assert ["3", "1.5", "0.25"] in rows  # means of the losses over both steps
    assert ["32", "123", "0.017", "61.5", "3.5", "0.042", "0"] in rows
    by_time = next(row for row in rows if row[:5] == ["loss", "by", "time", "of", "tex"])
    assert by_time[5:] == ["0.5", "██", "-", "1", "███", "0.25", "█", "2", "██████"]


@pytest.mark.parametrize(("rho", "distance"), [([-9.0] * 4 + [9.0], 0.0), ([9.0] + [-9.0] * 4, 1.0)])
def test_of_a_probe_also_the_curve_and_its_distance_from_collapse(folder, rho, distance):
    line = training_line(3) | {"kinetic": 4.0, "rho_tex": rho, "curve_tex": [0.125, 0.375, 0.75]}
    write(folder / "trace.jsonl", [line])
    shown = screen(folder)  # it is finished, so it need not be told to show it once
    assert "t(0.25) 0.125  t(0.5) 0.375  t(0.75) 0.75" in shown and "finished" in shown
    away = float(shown.split("distance from collapse")[1].split()[0])
    assert away == pytest.approx(distance, abs=1e-3)
    assert "kinetic / flow" in shown and "4 " in shown


@pytest.mark.parametrize(
    ("probe", "parameters", "distance"),
    [
        ("family: power", [-50.0, 50.0], 1.0),
        ("family: power", [50.0, 1e4], 0.0),
        ("family: convex-spline, curve: {bins: 2}", [-50.0, -50.0, 50.0], 0.0),
        ("family: nobody.s", [0.0], None),
        ("family: convex-spline, curve: {bins: 3}", [0.0], None),
    ],
)
def test_the_distance_is_that_of_the_family_in_the_config(folder, probe, parameters, distance):
    (folder / "config.yaml").write_text(f"probe: {{steps: 4, batch: 16, {probe}}}\n")
    write(folder / "trace.jsonl", [training_line(3) | {"kinetic": 4.0, "rho_tex": parameters, "curve_tex": [0.1] * 3}])
    shown = screen(folder)
    assert "t(0.25) 0.1" in shown and ("distance from collapse" in shown) == (distance is not None)
    if distance is not None:
        assert float(shown.split("distance from collapse")[1].split()[0]) == pytest.approx(distance, abs=1e-3)


def test_a_log_is_followed_as_it_grows(folder):
    path = folder / "trace.jsonl"
    write(path, [training_line(0)])
    tail, run = Tail(path), Run(folder)
    fresh, lines = tail.lines()
    assert fresh and [line["step"] for line in lines] == [0]
    with path.open("a") as file:
        file.write('{"step": 1, "lo')
        file.flush()
        assert tail.lines() == (False, [])
        file.write('ss": 1.5}\n{"step": 2}\n')
    assert tail.lines() == (False, [{"step": 1, "loss": 1.5}, {"step": 2}])
    assert tail.lines() == (False, [])
    run.add(lines)
    assert run.done == 1


def test_a_resumed_run_begins_again_and_broken_lines_are_left_out(folder):
    path = folder / "trace.jsonl"
    write(path, [training_line(0), training_line(1)])
    tail = Tail(path)
    assert len(tail.lines()[1]) == 2
    other = folder / "new"
    other.write_text('{"step": 0}\n{"step": 1, "l\n\n[1]\n{"step": 5}\n\xff\n')
    other.replace(path)
    assert tail.lines() == (True, [{"step": 0}, {"step": 5}])
    path.write_text('{"step": 0}\n')  # shorter than what was read
    assert tail.lines() == (True, [{"step": 0}])


def test_it_goes_on_until_the_last_step(folder, monkeypatch):
    path = folder / "trace.jsonl"
    write(path, [training_line(0)])
    (folder / "config.yaml").write_text("train: {steps: 3, batch: 16}")
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        with path.open("a") as file:
            file.write(json.dumps(training_line(len(naps))) + "\n")

    monkeypatch.setattr(live.time, "sleep", sleep)
    before = sorted(p.name for p in folder.iterdir())
    assert "step 3 of 3" in screen(folder)
    assert naps == [1.0, 1.0] and sorted(p.name for p in folder.iterdir()) == before


def test_unfinished_and_odd_runs(folder):
    (folder / "config.yaml").unlink()
    path = folder / "trace.jsonl"
    path.write_text("")
    assert "no step is logged yet" in screen(folder, once=True)
    path.write_text('{"step": 0, "loss": NaN, "grad_norm": Infinity}\n')
    shown = screen(folder, once=True)
    assert "step 1" in shown and "nan" in shown and "inf" in shown


def test_sparkline():
    assert sparkline([0, 7, 3.5, math.nan]) == "▁█▅ "
    assert sparkline([1.0, 1.0]) == "▁▁" and sparkline([]) == ""
    assert sparkline([0.0] * 60 + [2.0] * 60) == "▁" * 30 + "█" * 30  # pairs


@pytest.mark.parametrize(
    ("seconds", "words"), [(59.9, "59 s"), (3599, "59 min"), (3600, "1 h 0 min"), (183_600, "2 d 3 h")]
)
def test_durations(seconds, words):
    assert live.duration(seconds) == words


def test_mistakes(folder):
    done = CliRunner().invoke(app, ["watch", str(folder)])
    assert done.exit_code == 2 and "trace.jsonl: no such log" in done.stderr
    write(folder / "trace.jsonl", [training_line(0)])
    (folder / "config.yaml").write_text("[1")
    done = CliRunner().invoke(app, ["watch", str(folder), "--once"])
    assert done.exit_code == 2 and "config.yaml: not the config of a run" in done.stderr


def test_lines_that_are_no_metrics_are_passed_over(folder):
    good = training_line(7, 2.0)
    odd = [{**good, "loss": "a"}, {**good, "flow_tex": {"x": 1}}, {**good, "curve_tex": ["a"]}, [1], {"step": "x"}]
    write(folder / "trace.jsonl", [good, *odd, {**training_line(8), "loss": None, "loss_by_time_tex": 3.0}])
    shown = screen(folder, once=True)
    assert "step 9 of 7,202" in shown


@pytest.mark.parametrize("text", ["train: {steps: abc}", "train: [", "\udcff", "[]"])
def test_a_config_that_is_none(folder, text):
    (folder / "config.yaml").write_text(text, errors="surrogateescape")
    write(folder / "trace.jsonl", [training_line(3)])
    with pytest.raises(UserError, match=r"config\.yaml: not the config of a run"):
        screen(folder, once=True)


@pytest.mark.parametrize("steps", [3, 9])
def test_it_ends_with_a_probe_that_a_sweep_took_early_and_past_the_last_step(folder, steps):
    write(folder / "trace.jsonl", [{**training_line(steps), "kinetic": 1.0}])
    if steps == 3:
        (folder / "config.yaml").write_text("probe: {steps: 10, batch: 16}\n")
        (folder / "schedule.json").write_text("{}")
    assert "step" in screen(folder, every_s=60.0)
