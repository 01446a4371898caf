"""The recipes come with the package: listed, copied, never over anything; the demo needs no repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.config import load
from lwd.errors import UserError
from lwd.recipes import copy, names, recipe, summary
from lwd.stages.experiment import Experiment

ROOT = Path(__file__).parents[1]


def lwd(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_there_is_one_copy_which_the_repository_calls_configs() -> None:
    assert (ROOT / "configs").is_symlink()
    found = [path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")]
    assert {path.with_suffix("").as_posix() for path in found} == set(names()) and "imagenet256/xl" in names()


def test_each_is_listed_with_a_line() -> None:
    code, out, _ = lwd("recipes")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == names()
    assert "The demo: scikit-learn's 1 797 real 8x8 digits on a laptop's CPU." in out
    assert all(len(summary(name)) > 20 and summary(name).endswith(".") for name in names())


@pytest.mark.parametrize("name", names())
def test_a_copy_reads_as_the_recipe_does(name: str, tmp_path: Path) -> None:
    made = copy(name, tmp_path / "mine.yaml")
    assert made[0] == tmp_path / "mine.yaml" and load(Experiment, made[0]) == load(Experiment, recipe(name))


def test_where_a_copy_goes_and_what_it_never_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lwd("recipes", "imagenet256/xl-1m")[1] == "wrote xl-1m.yaml\nwrote xl.yaml\nwrote base.yaml\n"
    assert lwd("recipes", "imagenet256/weak") == (0, "wrote weak.yaml\n", "")  # base.yaml is there, and the same
    code, _, err = lwd("recipes", "imagenet256/weak")
    assert code == 2 and "weak.yaml: exists already" in err and err.count("\n") == 1
    Path("base.yaml").write_text("mine")
    code, _, err = lwd("recipes", "imagenet256/probe")
    assert code == 2 and "base.yaml: exists already" in err and not Path("probe.yaml").exists()
    Path("inside").mkdir()
    assert lwd("recipes", "digits", "inside")[1] == "wrote inside/digits.yaml\n"
    assert Path("base.yaml").read_text() == "mine"
    for name, hint in (("digit", "did you mean 'digits'"), ("../config", "known: digits, "), ("xyz", "no such recipe")):
        code, _, err = lwd("recipes", name)
        assert code == 2 and hint in err
    with pytest.raises(UserError, match="cannot be written in /proc"):
        copy("digits", Path("/proc/digits.yaml"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, built of a copy of the sources without network or isolation."""
    source, wheels, folder = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "installed"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("lwd-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_an_installed_wheel_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    for name in names():
        assert (installed / "lwd" / "recipes" / f"{name}.yaml").read_bytes() == recipe(name).read_bytes()
    code = """
import sys
import lwd
from lwd.cli.main import app
from typer.testing import CliRunner

assert lwd.__file__.startswith(sys.argv[1]), lwd.__file__
for line in ("recipes", "recipes digits", "demo --dry-run", "demo --dry-run -c digits.yaml"):
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    print(result.stdout)
"""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code, str(installed)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("output: runs/digits") == 2 and "imagenet256/xl-3m" in run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["digits.yaml"]
