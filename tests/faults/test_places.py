"""Where a result cannot be written is said before the work that makes it: one line, and nothing stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lwd.data.check
import lwd.stages.report.page
from lwd.cli.main import main
from lwd.data.stats import stats_path
from lwd.data.writing import write_stats
from lwd.errors import UserError
from lwd.files import check_new_place, check_place
from lwd.groups import Group, Layout
from lwd.models.convert import from_sfd, to_sfd
from lwd.probe import learn
from lwd.stages.experiment import Experiment
from lwd.stages.probe import sweep
from lwd.stages.report import write_page
from lwd.stages.train.export import export
from lwd.stages.train.power_ema import reconstruct

NOWHERE = Path("/proc/lwd")
"""Where not even root makes a file."""


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        action()
    return str(error.value)


def worked(*arguments: object, **settings: object) -> None:
    raise AssertionError("the work had begun")


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    check_place(tmp_path / "a" / "b" / "new.json")
    (tmp_path / "old").write_text("old")
    check_place(tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and (tmp_path / "old").read_text() == "old"
    assert refused(lambda: check_place(tmp_path)) == f"{tmp_path}: is a folder; name a file"
    assert "old is no folder" in refused(lambda: check_place(tmp_path / "old" / "new"))
    assert "cannot be written in /proc (No such file or directory)" in refused(lambda: check_place(NOWHERE))
    # 250 bytes are a file's name; those that it has while it is written are too long
    assert "File name too long" in refused(lambda: check_place(tmp_path / ("x" * 250)))
    assert "exists already" in refused(lambda: check_new_place(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: from_sfd(folder / "none.pt", NOWHERE),
        lambda folder: to_sfd(folder, NOWHERE / "back.pt"),
        lambda folder: export(folder / "step-00000002", NOWHERE),
    ],
    ids=["convert", "back", "export"],
)
def test_what_writes_last_tries_first(make: Callable[[Path], object], tmp_path: Path) -> None:
    """The place is named, not what they are to read, which is not there."""
    assert "/proc" in refused(lambda: make(tmp_path))


def test_ema(tmp_path: Path) -> None:
    (tmp_path / "posthoc" / "step-00000004").mkdir(parents=True)  # empty, as reading it would say
    assert "cannot be written in /proc" in refused(lambda: reconstruct(tmp_path, 0.1, out=NOWHERE))


def test_report(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lwd.stages.report.page, "read_page", worked)
    at = experiment.model_copy(update={"output": NOWHERE})
    assert "/proc/lwd/report.html: cannot be written" in refused(lambda: write_page(at))


@pytest.mark.parametrize("name", ["schedule.json", "sweep/table.json", "sweep/curves.png"])
def test_sweep(name: str, experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sweep.__globals__, "_find", worked)
    (experiment.output / name).mkdir(parents=True)
    assert refused(lambda: sweep(experiment)) == f"{experiment.output / name}: is a folder; name a file"


def test_probe(tmp_path: Path) -> None:
    (tmp_path / "schedule.json").mkdir()
    layout = Layout([Group("a", 1), Group("b", 1)])
    network = torch.nn.Linear(1, 1)
    line = refused(lambda: learn(network, [], layout, "a", kinetic_weight=1.0, folder=tmp_path))
    assert line == f"{tmp_path / 'schedule.json'}: is a folder; name a file"


def test_statistics(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(write_stats.__globals__, "channel_stats", worked)
    (tmp_path / "a.safetensors").write_bytes(b"")
    stats_path(tmp_path, "latents").mkdir()
    assert "latents_stats.pt: is a folder" in refused(lambda: write_stats(tmp_path, Layout([Group("tex", 4)])))


def test_check(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lwd.data.check, "check", worked)
    monkeypatch.setattr("sys.argv", ["lwd", "data", "check", str(data), "--picture", "/proc/histograms.png"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "/proc/histograms.png: cannot be written in /proc" in err
