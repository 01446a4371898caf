"""The page shows what the files say, stands alone, and makes do with half a folder."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
import torch
from hand_made import (
    FLOOR,
    PARTS,
    RESULTS,
    RHO,
    config,
    schedule,
    write_data,
    write_sample_set,
    write_sweep,
    write_trace,
)
from safetensors.torch import save_file

import lwd.stages.report.trace as trace
import lwd.training.log_file as log_file
from lwd.config import parse
from lwd.errors import UserError
from lwd.plots.curves import save_probe_curves
from lwd.plots.drawing import Drawing
from lwd.run import RunConfig
from lwd.schedules import Curve, IdentityCurve, PolynomialCurve, Schedule
from lwd.stages.report import write_page

HEADINGS = {
    "learned": "The learned schedule",
    "sweep": "How strong must the regulariser be?",
    "trace": "How the probe got there",
    "comparison": "What it buys",
    "samples": "Samples beside real images",
    "strip": "Which part forms first?",
}


class Reader(HTMLParser):
    """Collects the text, and what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())  # every kind of space becomes a plain one


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text())
    return reader


def sections(page: Path) -> set[str]:
    text = read(page).text
    return {name for name, heading in HEADINGS.items() if heading in text}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a folder with everything."""
    folder = tmp_path_factory.mktemp("whole")
    for write in PARTS.values():
        write(folder)
    return write_page(config(folder))


def test_all_sections_with_the_numbers_of_the_files(page):
    assert page.name == "report.html"
    assert sections(page) == set(HEADINGS)
    text = read(page).text
    for means in ("9.62", "8.06", "13.00", "6.00", "6.38", "7.31"):  # of two seeds each
        assert means in text
    for shown in ("5.50 to 6.50", "81.0 %", "41.25", str(FLOOR), "0.012", "0.345", "0.789", "collapsed below 0.1"):
        assert shown in text
    for shown in ("scribbles", "1 234", "62.5 %", "87.5 %", "93.8 %", "0123456789ab", "9.8.7"):
        assert shown in text
    times = schedule(0.04)["paint"](torch.tensor([0.25, 0.5, 0.75]))[0]
    assert all(f"{float(t):.3f}" in text for t in times)
    assert "the lowest mean Fréchet distance is that of together: 6.00, against 6.38 for apart" in text
    assert "offset 0.25" in text and "τ⁵" in text and "corrected no" in text
    assert "60 steps at λ = 0.04" in text and "burn-in of 30" in text
    assert len([tag for tag in read(page).tags if tag == "svg"]) == 2 + 2 + 3 + 2 + 3


def test_it_stands_alone(page):
    text = page.read_text()
    assert "http" not in text and "//" not in re.sub(r"data:image/png;base64,[\w+/=]*", "", text)
    assert all(reference.startswith(("data:", "#")) for reference in read(page).references)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text and "<script" not in text and "<link" in text


def test_every_stand_in_colour_became_a_variable_that_is_defined(page):
    text = page.read_text()
    assert "#0100" not in text
    assert set(re.findall(r"var\(--([\w-]+)\)", text)) <= set(re.findall(r"--([\w-]+):", text))


def test_no_group_is_known_by_name(page):
    text = read(page).text
    assert not re.search(r"\b(tex|sem)\b", text)


def test_the_same_folder_gives_the_same_page_and_leaves_matplotlib_as_it_was(page):
    first, before = page.read_bytes(), dict(matplotlib.rcParams)
    assert write_page(config(page.parent)).read_bytes() == first
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["data"], set()),
        (["sweep"], {"learned", "sweep", "trace"}),
        (["results"], {"comparison"}),
        (["data", "sweep"], {"learned", "sweep", "trace"}),
        (["data", "samples"], {"samples", "strip"}),
        (["sweep", "samples"], {"learned", "sweep", "trace"}),
    ],
)
def test_half_a_folder_gives_half_a_page(tmp_path, parts, expected):
    for part in parts:
        PARTS[part](tmp_path)
    assert sections(write_page(config(tmp_path))) == expected


def test_a_single_probe_is_enough_for_the_learned_schedule(tmp_path):
    schedule(0.2).save(tmp_path / "probe" / "schedule.json")
    write_trace(tmp_path / "probe" / "trace.jsonl", ["paint", "idea"], ["paint"])
    assert sections(write_page(config(tmp_path))) == {"learned", "trace"}


def test_a_log_that_was_thinned_is_drawn_at_even_distances(output, monkeypatch):
    """Sixty steps, of which 40 to 59 stay and before them every 10th: drawn are 9, 19, ..., 59."""
    path = output / "sweep" / "lambda-0.04" / "trace.jsonl"
    monkeypatch.setattr(log_file, "WHOLE", 10)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("")
    log = log_file.LogFile(path, 0)
    for line in lines:
        log.append([json.loads(line)])
    assert [line["step"] for line in log_file.read_log(path)] == [9, 19, 29, 39, *range(40, 60)]
    drawn = []
    monkeypatch.setattr(trace.plots, "trace", lambda lines, *_: drawn.append([list(line.x) for line in lines]) or "")
    section = trace.trace_section(config(output))
    assert section.steps == 60 and section.burn_in == 30
    assert all(x == [9, 19, 29, 39, 49, 59] for lines in drawn for x in lines) and len(drawn) == 3


def test_nothing_to_show_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="nothing to show yet"):
        write_page(config(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_sweep_in_which_every_probe_collapsed(tmp_path):
    write_sweep(tmp_path)
    (tmp_path / "schedule.json").unlink()
    table = json.loads((tmp_path / "sweep" / "table.json").read_text())
    rows = [row | {"collapsed": True} for row in table["rows"]]
    (tmp_path / "sweep" / "table.json").write_text(json.dumps(table | {"rows": rows, "chosen": None}))
    page = write_page(config(tmp_path))
    assert sections(page) == {"sweep"}
    assert "every one collapsed" in read(page).text


def test_three_groups_two_of_them_learned(tmp_path):
    groups = [{"name": name, "channels": 3} for name in ("fine", "lead", "coarse")]
    curves = {name: PolynomialCurve.from_rho(torch.tensor(RHO[0.04])) for name in ("fine", "coarse")}
    learned = Schedule({"fine": curves["fine"], "lead": IdentityCurve(), "coarse": curves["coarse"]}, {"burn_in": 20})
    learned.requires_grad_(False).save(tmp_path / "probe" / "schedule.json")
    write_trace(tmp_path / "probe" / "trace.jsonl", ["fine", "lead", "coarse"], ["fine", "coarse"])
    plain = {"output": str(tmp_path), "groups": groups, "leader": "lead"}
    text = read(write_page(parse(RunConfig, plain, "test"))).text
    assert "three parts" in text and "learned, fine" in text and "learned, coarse" in text
    assert "flow, lead" in text and "offset 0.3" in text


@pytest.mark.parametrize(
    ("family", "formula", "extremal"),
    [
        ("power", "0.993 τ + 0.007 τ^5.00", "max(1000 τ - 999, 0)"),
        ("convex-spline", "rates 1.00, 1.00, 1.00, ", "rates 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 16.00"),
        ("rational-quadratic", "through (0.00, 0.00), (0.12, 0.12), ", "max(1000 τ - 999, 0)"),
        ("tests.bent", "tests.bent, parameters (0.000)", "max(1000 τ - 999, 0)"),
    ],
)
def test_any_family_is_drawn(tmp_path, family, formula, extremal):
    """On the page and in a probe's pictures; the last is a class of this file."""
    learned = Schedule.learnable(["fine", "lead"], "lead", family).requires_grad_(False)
    learned.save(tmp_path / "probe" / "schedule.json")
    groups = [{"name": name, "channels": 3} for name in ("fine", "lead")]
    plain = {"output": str(tmp_path), "groups": groups, "leader": "lead"}
    text = read(write_page(parse(RunConfig, plain, "test"))).text
    assert formula in text and f"extremal, {extremal}" in text
    save_probe_curves(tmp_path / "step-3.png", learned, learned, [learned])
    assert (tmp_path / "step-3.png").stat().st_size > 1000


class BentCurve(Curve):
    kind = "tests.bent"

    def __init__(self):
        super().__init__()
        self.bend = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tau):
        b = torch.tanh(self.bend.double())
        t, rate = tau - b * tau * (1 - tau), 1 - b * (1 - 2 * tau)
        return t.to(tau.dtype), rate.to(tau.dtype)


def test_other_samples_than_a_comparison_s_are_shown_too(tmp_path):
    write_data(tmp_path)
    folder = tmp_path / "samples" / "mine"
    write_sample_set(folder, torch.zeros(7, 8, 8, 3, dtype=torch.uint8), torch.full((7,), 10))
    page = write_page(config(tmp_path))
    assert sections(page) == {"samples"} and "mine" in read(page).text


def test_names_are_escaped(tmp_path):
    results = [row | {"variant": "<script>alert('&')</script>"} for row in RESULTS if row["variant"] == "apart"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = write_page(config(tmp_path))
    assert "<script" not in page.read_text() and "script" not in read(page).tags
    assert "<script>alert('&')</script>" in read(page).text


@pytest.mark.parametrize("name", ["$x", "a $b^2$ c$", "_private", "50 %"])
def test_names_are_drawn_as_they_are(tmp_path, name):
    """Neither as matplotlib's mathematics, which a single $ breaks, nor left out of a legend for their first letter."""
    (tmp_path / "results.json").write_text(json.dumps([row | {"variant": name} for row in RESULTS[:2]]))
    assert read(write_page(config(tmp_path))).text.count(name) > 2


def test_data_of_one_s_own_pictures_has_no_judge(tmp_path):
    write_data(tmp_path)
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    changes = {"judge": None, "semantic": {"group": "idea", "weights_sha256": "0" * 64}, "classes": ["cat", "dog"]}
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest | changes))
    text = read(write_page(config(tmp_path))).text
    assert "0123456789ab" in text and "judge, held-out accuracy" not in text


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("data/manifest.json", ("splits", "train", "images"), "many"),
        ("data/manifest.json", ("judge", "channels"), 10**12),
        ("data/manifest.json", ("semantic", "explained_variance_ratio"), 0.5),
        ("data/manifest.json", ("texture",), ["paint"]),
        ("data/versions.json", (), [1]),
        ("results.json", (0, "frechet"), 10**400),
        ("results.json", (0,), None),
        ("sweep/table.json", ("rows", 0, "folder"), "../../elsewhere"),
        ("sweep/table.json", ("cost",), 3),
        ("schedule.json", ("provenance", "burn_in"), "late"),
        ("schedule.json", ("provenance", "lambda"), [0.04]),
        ("samples/apart-seed0-2000/samples.json", ("count",), True),
        ("samples/together-seed0-2000/evaluation.json", ("metrics", "frechet_real"), "low"),
    ],
)
def test_a_value_of_another_kind(output, file, keys, value):
    """One line names the file and the key."""
    *above, last = keys or (None,)
    data = inside = json.loads((output / file).read_text())
    for key in above:
        inside = inside[key]
    if last is None:
        data = value
    else:
        inside[last] = value
    (output / file).write_text(json.dumps(data))
    with pytest.raises(UserError) as error:
        write_page(config(output))
    named = [str(key) for key in keys if isinstance(key, str)]
    assert str(output / file) in str(error.value) and all(name in str(error.value) for name in named[-1:])
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 900


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("results.json", '[{"variant": "apart"}]', "not a table of results"),
        ("results.json", "{", "not valid JSON"),
        ("sweep/table.json", '{"rows": []}', "not the table of a sweep"),
        ("sweep/table.json", '{"rows": [], "chosen": null, "points": []}', "rows: tuple should have at least 1 item"),
        ("sweep/lambda-0.04/trace.jsonl", '{"step": 0}\n', "not the log of a probe"),
        ("sweep/lambda-0.04/trace.jsonl", '{"step": 0', "empty"),
        ("sweep/lambda-0.04/trace.jsonl", "", "empty"),
        ("samples/apart-seed0-2000/samples.safetensors", "x", "not a readable safetensors file"),
        ("samples/apart-seed0-2000/samples.json", "[]", "a list, no mapping"),
        ("samples/apart-seed0-2000/images.npz", "x", "not a readable npz"),
        ("data/manifest.json", "{}", "not a manifest"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(output, monkeypatch, file, content, complaint):
    """One line says so, before anything is drawn."""
    monkeypatch.setattr(Drawing, "__html__", None)
    (output / file).write_text(content)
    with pytest.raises(UserError, match=complaint) as error:
        write_page(config(output))
    assert file in str(error.value) and "\n" not in str(error.value)
    assert not (output / "report.html").exists()


def test_a_trajectory_of_another_layout(output):
    path = output / "samples" / "apart-seed0-2000" / "trajectory.safetensors"
    keys = ("states", "predictions", "taus", "times")
    save_file({key: torch.zeros(3, 3, 3, 4, 4) for key in keys}, path)
    with pytest.raises(UserError, match="layout") as error:
        write_page(config(output))
    assert str(path) in str(error.value)
