"""The study's command on a miniature: rows, schedules, pages; what is finished is found again, here and elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

FOLDER = Path(__file__).parents[2] / "experiments" / "study"
sys.path.insert(0, str(FOLDER))

import design  # noqa: E402
import learn  # noqa: E402
import prediction  # noqa: E402
import run  # noqa: E402
import study  # noqa: E402
import tables  # noqa: E402
from figures import panels_of, save_figures  # noqa: E402
from lwd.config import dump, load  # noqa: E402
from lwd.errors import UserError  # noqa: E402
from lwd.plots.drawing import save_png  # noqa: E402
from lwd.probe.task import ProbeObjective  # noqa: E402
from lwd.schedules import Schedule  # noqa: E402
from lwd.stages.train.run import DenoiserObjective  # noqa: E402
from page import full_tables  # noqa: E402
from shared import built_once  # noqa: E402

CELLS = (
    "{paths: {data: digits, paths: [synchronous, 'offset:0.3', algorithm-1, map-loss], seeds: 3, budgets: [2]}, "
    "uniform: {data: digits, paths: [synchronous], densities: [uniform], solvers: [heun8], seeds: 1, budgets: [2]}, "
    "sfd: {data: digits, paths: ['offset:0.3'], corrected: false, guided: true, seeds: 1, budgets: [2]}}"
)
HYPOTHESES = (
    "{learned: {says: order, at: {data: digits, steps: 2}, a: {path: algorithm-1}, b: {path: synchronous}, "
    "expected: lower}, "
    "map: {says: map, at: {data: digits, steps: 2}, a: {path: map-loss}, b: {path: synchronous}, expected: none}, "
    "few: {says: few, at: {data: digits, path: synchronous, steps: 2}, a: {density: uniform}, b: {}, expected: lower}}"
)
MINIATURE = (
    "model={name: LightningDiT-Mini/1, depth: 2}",
    "encode.encoder_steps=5",
    "encode.judge_steps=5",
    "probe={steps: 2, burn_in: 1, batch: 4}",
    "sweep={kinetic_weights: [0.05], collapsed_below: 0.0, early_stop: false, processes: 1}",
    "train.batch=4",
    "map={images: 4, points: 3}",
    "score={nodes: 3, samples: 0, kinetic_weights: [0.1], schedules: [synchronous]}",
    "sample={num: 12, batch: 12, solver: heun, steps: 1}",
    "study.solvers.heun8.steps=2",
    "study.weak.steps=1",
    "compare.processes=1",
    "study.regression_images=60",
    f"study.cells={CELLS}",
    f"study.hypotheses={HYPOTHESES}",
)
ONE = (
    "dino-learned: {says: order, at: {data: dino, steps: 1500}, a: {path: algorithm-1}, b: {path: synchronous}, "
    "expected: lower}"
)
UNKNOWN = ("{{cpu rule nowhere loss}}", "{{cpu rank digits lsos}}", "{{cpu ranked nowhere}}", "{{cpu rule digits no}}")
UNKNOWN += ("{{cpu probe digits 3}}", "{{cpu probe nowhere 0.05}}", "{{cpu explained nowhere}}", "{{cpu collapsed no}}")
WORDS = """# Results
{{cpu mean digits algorithm-1 logit_normal 2}}; {{cpu mean digits synchronous uniform 2 heun8}};
{{cpu difference learned}}, {{cpu verdict learned}}; {{cpu verdict few}}; {{cpu rank digits loss}}; {{cpu floor digits}}
{{cpu cost digits by_probes}} s; at {{cpu probe digits 0.05}}, {{cpu collapsed digits}}, of {{cpu explained digits}}

{{cpu rule digits algorithm-1}}; {{cpu rule digits nats}}; {{cpu rule digits map-algorithm-1}}

{{cpu figure hypotheses}}
"""


def command(folder: Path, *more: str, output: str = "run") -> int:
    return study.main(
        ["--preset", "cpu", "--output", str(folder / output), "--results", str(folder / "results"), *more, *MINIATURE]
    )


def pages(folder: Path) -> int:
    (folder / "words.md").write_text(WORDS)
    places = ["--results", str(folder / "results"), "--template", str(folder / "words.md")]
    return study.main([*places, "--page", str(folder / "docs" / "results.md")])


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results" / "cpu" / "measurements.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run once, and a copy of it for every worker, whose folder its config then names."""

    def build(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prediction, "GLOBAL_TIMES", 3)
            patch.setattr(prediction, "NODES", 4)
            assert command(folder) == 0 and pages(folder) == 0

    built = built_once(tmp_path_factory, "study", build)
    folder = shutil.copytree(built, tmp_path_factory.mktemp("study") / "done")
    config = folder / "results" / "cpu" / study.CONFIG
    config.write_text(config.read_text().replace(str(built), str(folder)))
    return folder


def test_a_row_for_all_that_the_design_asks(done: Path) -> None:
    keys = ("path", "density", "corrected", "seed", "steps", "solver", "guided")
    found = {tuple(row[key] for key in keys) for row in rows(done)}
    paths = ("synchronous", "offset:0.3", "algorithm-1", "map-loss")
    expected = {(path, "logit_normal", True, seed, 2, "exact", False) for path in paths for seed in range(3)}
    expected |= {("synchronous", "uniform", True, 0, 2, solver, False) for solver in ("exact", "heun8")}
    expected |= {("offset:0.3", "logit_normal", False, 0, 2, "exact", guided) for guided in (False, True)}
    assert found == expected and len(rows(done)) == len(expected)
    for row in rows(done):
        assert row["samples"] == 12 and row["frechet"] > 0 and len(row["replicates"]) == 100
        assert (row["weak_weights"] is not None) == row["guided"]
        assert row["nfe"] == (4 if row["solver"] == "heun8" else 2) or row["path"] == "offset:0.3"  # kinks cost steps
    assert len({row["config"] for row in rows(done)}) == len(expected)
    assert len({row["weights"] for row in rows(done) if row["path"] == "map-loss"}) == 3


def test_learned_paths_are_what_their_rules_made(done: Path) -> None:
    folder = done / "results" / "cpu" / "digits"
    learned = {path: Schedule.load(folder / "schedules" / f"{path}.json") for path in design.LEARNED}
    of = {row["path"]: row["schedule"] for row in rows(done)}
    assert of["algorithm-1"] == learned["algorithm-1"].hash() and of["map-loss"] == learned["map-loss"].hash()
    assert learned["algorithm-1"].provenance["jacobian"] == "stop"
    assert learned["exact-jacobian"].provenance["jacobian"] == "exact"
    results = study.read(done / "results" / "cpu")
    assert [row["path"] for row in results.scores] == ["synchronous", "offset:0.3", "algorithm-1", "map-loss"]
    assert all(row["loss"] > 0 and row["distance"] is None for row in results.scores)  # score.samples=0
    (predicted,) = results.predictions
    assert predicted["drives"].keys() == {"own", "help", "harm", "kinetic"} and predicted["lambda"] == 0.05
    assert set(results.costs["digits"]) == {"by_probes", "on_the_map"}


def test_the_pages(done: Path) -> None:
    text = (done / "docs" / "results.md").read_text()
    assert "{{" not in text and "not measured" in text  # one seed decides nothing
    assert "](results/cpu-hypotheses.png)" in text
    results = study.read(done / "results" / "cpu")
    assert f" s; at {results.probes[0]['distance']:.2f}, 0 of 1, of {results.semantics[0]['r2_mlp']:.2f}\n" in text
    chosen = tables.chosen(results, "digits")
    assert min(one.less for one in chosen.values()) >= 0 and "map-algorithm-1" not in chosen  # no cell trains it
    assert f"{chosen['algorithm-1'].less:+.1f}; {chosen['nats'].less:+.1f}, {chosen['nats'].path}; n/a" in text
    text = (done / "docs" / "results" / "cpu.md").read_text()
    assert (
        "| **order** | Fréchet distance | lower |" in text
        and "| least held-out loss L of the paths |" in text
        and "| digits | offset:0.3 |" in text
    )
    figures = {path.name for path in (done / "docs" / "results").glob("*.png")}
    assert figures == {f"cpu-{name}.png" for name in ("paths", "hypotheses", "schedules", "rules")}


def test_the_bar_of_all_jobs_counts_what_they_count(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = FOLDER / "presets" / "cpu.yaml"
    again = load(design.StudyConfig, preset, [f"output={done / 'run'}", *MINIATURE, "sample.num=13"])
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(run, "run_jobs", lambda _, jobs, title, units, *more: asked.append((len(jobs), units)))
    run.train_and_measure(again)
    assert asked == [(1, 1), (14, round((14 * 2 + 16 * 13) / 14))]  # a weak step; two steps a run, 16 times 13 samples


def test_extra_cells_are_trained_where_that_is_asked_for(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [*MINIATURE, "study.cells.uniform.extra=true", "study.cells.sfd.extra=true"]
    asked: list[int] = []
    monkeypatch.setattr(run, "run_jobs", lambda _, jobs, *others: asked.append(len(jobs)))
    here = ["--preset", "cpu", "--output", str(done / "run")]
    for extra in ([], ["--extra"]):
        assert study.main([*here, *extra, "--only", "train", *more, "sample.num=13"]) == 0
    assert asked == [0, 12, 1, 14]  # weak models, runs
    results = ["--results", str(done / "extra"), "--only", "rows", *more]
    assert study.main([*here, *results]) == 0  # what is there is of the study all the same
    found, before = (done / at / "cpu" / "measurements.jsonl" for at in ("extra", "results"))
    assert found.read_bytes() == before.read_bytes()
    new = ["--preset", "cpu", "--output", str(done / "new"), "--results", str(done / "extra")]
    monkeypatch.undo()
    assert study.main([*new, "--only", "encode", *more]) == study.main([*new, "--only", "rows", *more]) == 0
    assert found.read_bytes() == before.read_bytes()  # as rows of ordinary cells are found again
    capsys.readouterr()
    for only in ([], ["--only", "rows"]):
        assert study.main([*new, *only, *more, "sample.num=13"]) == 2
        assert "4 of its rows, of extra cells, were made under other settings" in capsys.readouterr().err
    assert study.main([*here, "--extra", *MINIATURE]) == 2  # no cell is
    shared = "study.cells.more={data: digits, paths: [synchronous], seeds: 1, budgets: [1, 2], extra: true}"
    assert study.main([*here, *MINIATURE, shared]) == 2
    said = capsys.readouterr().err
    assert "no cell of what is asked for is marked extra" in said and "of an extra cell, with other budgets" in said


def test_a_path_that_was_not_scored_is(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = json.loads((done / "run" / "digits" / "scores.json").read_text())
    joint = load(design.StudyConfig, FOLDER / "presets" / "cpu.yaml", [f"output={tmp_path / 'run'}", *MINIATURE])
    shutil.copytree(done / "run" / "digits" / "schedules", tmp_path / "run" / "digits" / "schedules")
    asked: list[Any] = []
    monkeypatch.setattr(learn.score, "run", asked.append)
    monkeypatch.setattr(learn.train, "run", asked.append)
    monkeypatch.setattr(learn.maps, "run", asked.append)
    file = learn.scores_file(joint, "digits")
    file.parent.joinpath("score").mkdir()
    file.parent.joinpath("score", "score.json").write_text(json.dumps(scores))
    for known, times in ((scores["rows"], 0), (scores["rows"][1:], 3)):
        file.write_text(json.dumps(scores | {"rows": known}))
        learn.score_all(joint)
        assert len(asked) == times
    kinds = [choice.kind for choice in asked[-1].score.schedules]
    assert kinds == ["synchronous", "offset", "learned", "learned"]
    assert json.loads(file.read_text()) == scores


def test_data_that_wait_for_their_rows_are_left_out(done: Path, tmp_path: Path) -> None:
    results = study.read(done / "results" / "cpu")
    waiting = load(
        design.StudyConfig, done / "results" / "cpu" / "config.yaml", ["study.data.later={title: still to come}"]
    )
    results = replace(results, study=waiting, costs={**results.costs, "later": {}})
    assert "later" not in full_tables("cpu", results) and "still to come" not in full_tables("cpu", results)
    save_figures(results, tmp_path / "cpu")
    for picture in tmp_path.glob("*.png"):  # as many panels
        assert Image.open(picture).size == Image.open(done / "docs" / "results" / picture.name).size
    assert len(list(tmp_path.glob("*.png"))) == 4
    alone = replace(results, rows=[row for row in results.rows if row["seed"] == 0], probes=[], costs={})
    assert "n/a" in tables.predicted(alone) and "Processor" not in full_tables("cpu", alone)
    assert set(panels_of(alone)) == {"paths", "schedules"}


def test_a_far_path_is_a_number_at_the_edge(done: Path) -> None:
    results = study.read(done / "results" / "cpu")
    far = [row | {"frechet": 1e5} if row["path"] == "map-loss" else row for row in results.rows]
    panels = panels_of(replace(results, rows=far))
    paths, rule = (Figure().subplots() for _ in range(2))
    panels["paths"][0](paths)
    panels["rules"][0](rule)
    assert [text.get_text() for text in paths.texts] == ["100000 \N{RIGHTWARDS ARROW}"] and paths.get_xlim()[1] < 1e5
    assert [text.get_text().endswith(", 100000") for text in rule.get_legend().get_texts()] == [
        False,
        False,
        False,
        True,
    ]
    assert rule.get_ylim()[1] < 1e5


def test_four_panels_are_two_rows(tmp_path: Path) -> None:
    save_png(tmp_path / "four.png", [lambda axes: axes.set_title("one")] * 4, width=2, height=1, columns=3)
    save_png(tmp_path / "two.png", [lambda axes: axes.set_title("one")] * 2, width=2, height=1, columns=3)
    assert [Image.open(tmp_path / f"{name}.png").size for name in ("four", "two")] == [(960, 320), (640, 160)]


def test_what_cannot_be_filled_in_is_one_line(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tmp_path / "words.md"
    wrongs = ("{{cpu mean digits}} {{cpu difference none}}", "{{gpu floor digits}}", "{{cpu no}}", "{{cpu figure no}}")
    for wrong in (*wrongs, "{{gpu figure paths}}", *UNKNOWN):
        words.write_text(wrong)
        places = ["--results", str(done / "results"), "--template", str(words)]
        assert study.main([*places, "--page", str(tmp_path / "page.md")]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "page.md: {{" in error and not (tmp_path / "page.md").exists()


def test_finished_work_is_found_again(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same folder; and in a new one, from the small files and rows of the results, but for the latents."""
    before = {path: path.read_bytes() for path in (done / "results").rglob("*") if path.is_file()}

    def never(*_: object) -> None:
        raise AssertionError("finished work was done again")

    for module, name in ((run.sample, "run"), (run, "measure"), (run, "explained"), (prediction, "surfaces")):
        monkeypatch.setattr(module, name, never)
    for objective in (DenoiserObjective, ProbeObjective):
        monkeypatch.setattr(objective, "forward", never)
    assert command(done) == 0
    assert {path: path.read_bytes() for path in before} == before
    monkeypatch.setattr(run.train, "run", never)
    assert command(done, "--only", "encode", output="other") == 0
    assert command(done, "--only", "train", output="other") == 0
    assert not (done / "other" / "digits" / "train").exists()  # no network was needed


def test_one_data_set_alone_leaves_the_rows_of_others(done: Path, tmp_path: Path) -> None:
    kept = tmp_path / "cpu" / "measurements.jsonl"
    kept.parent.mkdir()
    kept.write_text('{"data": "elsewhere"}\n{"data": "digits", "stale": true}\n')
    others = ["--results", str(tmp_path), "--only", "rows", "study.data.elsewhere={title: x}"]
    assert command(done, "--data", "digits", *others) == 0
    assert kept.read_text() == (done / "results/cpu/measurements.jsonl").read_text() + '{"data": "elsewhere"}\n'
    assert command(done, "--data", "nowhere") == 2


def test_a_control_alone_leaves_its_source_to_be_encoded(tmp_path: Path) -> None:
    whole = load(design.StudyConfig, FOLDER / "presets" / "cpu-long.yaml", [f"output={tmp_path / 'run'}"])
    part = design.part_of(whole, ["shuffled"])
    assert list(part.study.data) == ["dino", "shuffled"] and design.learning(part) == ["shuffled"]
    kept = tmp_path / "measurements.jsonl"
    kept.write_text('{"data": "coarse"}\n{"data": "dino"}\n{"data": "shuffled"}\n{"data": "given up"}\n')
    study.note_machine(whole)
    study.collect(whole, part, tmp_path)
    assert kept.read_text() == '{"data": "dino"}\n{"data": "coarse"}\n'


def test_rows_that_stay_are_of_the_settings_that_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = load(design.StudyConfig, FOLDER / "presets" / "cpu-long.yaml", [f"output={tmp_path / 'run'}"])
    results = tmp_path / "cpu-long"
    results.mkdir()
    (results / "measurements.jsonl").write_text('{"data": "dino"}\n')
    (results / "config.yaml").write_text(dump(whole))
    cells = "study.cells.coarse.seeds=3"  # what is still to be run says nothing of what was
    more = load(design.StudyConfig, FOLDER / "presets" / "cpu-long.yaml", [f"output={tmp_path / 'other'}", cells])
    study.check_kept(more, design.part_of(more, ["coarse"]), results)
    asked = ["--preset", "cpu-long", "--data", "coarse", "--results", str(tmp_path), "--output", str(tmp_path / "run")]
    assert study.main([*asked, "train.batch=32"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "rows of 'dino' were made under other settings" in said
    assert not (tmp_path / "run").exists()
    study.check_kept(whole, design.part_of(whole, ["dino"]), results)  # its rows are made again
    (results / "measurements.jsonl").write_text('{"data": "shuffled"}\n')  # made of dino's latents
    layer, budgets = "study.data.dino.changes={encode: {semantic: {layer: 9}}}", "study.cells.shuffled.budgets=[3000]"
    for wrong in (layer, "study.data.shuffled.shuffled=dino-4", budgets):
        changed = load(design.StudyConfig, FOLDER / "presets" / "cpu-long.yaml", [wrong, f"study.hypotheses={{{ONE}}}"])
        with pytest.raises(UserError, match="'shuffled' were made under other settings"):
            study.check_kept(changed, design.part_of(changed, ["dino"]), results)
    for of_others in ("study.weak.steps=7", "study.solvers.new={solver: heun, steps: 3}"):
        changed = load(design.StudyConfig, FOLDER / "presets" / "cpu-long.yaml", [of_others])
        study.check_kept(changed, design.part_of(changed, ["dino"]), results)


@pytest.mark.parametrize("preset", ["cpu", "cpu-long", "gpu"])
def test_the_presets(preset: str) -> None:
    config = load(design.StudyConfig, FOLDER / "presets" / f"{preset}.yaml")
    design.check(config)
    assert config.sample.num >= 5000
    main = {"cpu": {"paths", "solver"}, "cpu-long": {"digits", "dino", "coarse"}, "gpu": {"paths"}}[preset]
    fewer = {name: cell.seeds for name, cell in config.study.cells.items() if name not in main and not cell.extra}
    assert {config.study.cells[name].seeds for name in main} == {3 if preset == "gpu" else 8}
    assert set(fewer.values()) == (set() if preset == "gpu" else {4})
    extra = {f"{preset} --extra": config} if any(cell.extra for cell in config.study.cells.values()) else {}
    for name, part in {preset: design.without_extra(config), **extra}.items():
        runs = design.runs(part)
        steps = f"{sum(design.run_config(part, one).train.steps for one in runs):,}".replace(",", " ")
        row = f"| `{name}` | {len(runs)} | {steps} | {len(design.measurements(part))} |"
        assert row in (FOLDER / "README.md").read_text()
    for one in design.measurements(config):
        if one.run.seed == 0:
            made = design.sample_config(config, one)
            assert one.steps in made.train.checkpoint_steps and made.sample.seed == made.seed == 0


def test_wrong_names_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("study.primary=nowhere", "study.cells.paths.data=nowhere", "study.cells.solver.solvers=[nowhere]"):
        with pytest.raises(UserError, match="'nowhere' is not one of"):
            load(design.StudyConfig, FOLDER / "presets" / "cpu.yaml", [wrong])
    with pytest.raises(UserError, match=r"hypotheses\.lead: no cell measures"):
        load(design.StudyConfig, FOLDER / "presets" / "cpu.yaml", ["study.hypotheses.lead.at.steps=601"])
    assert study.main(["--preset", "cpu", "--output", str(tmp_path), "study.primary=nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
