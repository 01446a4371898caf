"""Every command of README.md and the docs is one that the product takes: command, options, types, keys, values, files.

Nothing is run here but ``--dry-run``. What is run as well: all of docs/imagenet.md, which therefore is left out here
(`tests/e2e/test_imagenet_dry_run.py`), and most of the other pages (`tests/e2e/test_doc_pages.py`).
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from doc_pages import PAGES, ROOT, Line, lines
from lwd.cli.main import app
from lwd.config import load
from lwd.stages.experiment import Experiment
from pictures import noise

STAGES = ("encode", "semvae", "probe", "sweep", "train", "map", "score", "sample", "evaluate", "report", "demo")
"""They take ``--dry-run``."""
SHELL = ("if", "exit", "export", "pip", "docker")
"""What else stands in bash blocks, and is no program of this repository."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader of the pages has: the repository's configs, those that pages show or make, and one of the own."""
    made = tmp_path_factory.mktemp("reader")
    for name in ("configs", "experiments"):
        (made / name).symlink_to(ROOT / name)
    for name, text in re.findall(r"```yaml\n# (\w+\.yaml)\n(.*?)```", PAGES["data"].read_text(), re.DOTALL):
        (made / name).write_text(text)
    (made / "my.yaml").write_text("base: configs/digits.yaml\n")
    for number in range(10):
        picture = made / "pictures" / "ab"[number % 2] / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        noise(16, 16, number).save(picture)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(made)
        for command in ("init pictures/", "recipes imagenet256/xl"):
            result = CliRunner().invoke(app, command.split())
            assert result.exit_code == 0, result.output
    return made


@pytest.fixture(autouse=True)
def as_a_reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


LWD: Any = typer.main.get_command(app)


def found(words: list[str]) -> tuple[Any, list[str]]:
    """The parser of a command of lwd, and the words that are left for it; of `lwd data` alone its group."""
    command = LWD
    while words and words[0] in (subcommands := getattr(command, "commands", {})):
        command, words = subcommands[words[0]], words[1:]
    assert command is not LWD, f"no command {words}"
    return getattr(command, "commands", {}).get("run", command), words


def parsed(words: list[str]) -> dict[str, Any]:
    """The values of a command's arguments and options, by the product's own parser, which raises for wrong ones."""
    command, rest = found(words)
    values: dict[str, Any] = command.make_context(command.name, list(rest)).params
    return values


def check(words: list[str]) -> None:
    """Raises where the product would not take the command."""
    values = parsed(words)
    if words[0] in ("plan", "check"):
        load(Experiment, Path(words[1]), [word for word in words[2:] if re.match(r"[\w.]+=", word)])
    elif words[0] == "encode" or any("s3://" in word for word in words):  # a dry run looks for the images, too
        load(Experiment, values["config"], values["overrides"] or ())
    elif words[0] in STAGES and words[:2] != ["evaluate", "compare"]:
        result = CliRunner().invoke(app, [*words, "--dry-run"])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("page", sorted({page for page in PAGES if any(lines(page))} - {"imagenet"}))
def test_the_commands_of_a_page_are_taken(page: str) -> None:
    wrong = []
    for line in lines(page):
        try:
            check_line(line)
        except (Exception, SystemExit) as error:  # a parser's own kind, or argparse's way out
            wrong.append(f"{line}\n  {error!r} {error}")
    assert not wrong, "\n".join(wrong)


def check_line(line: Line) -> None:
    words = line.program
    if line.lwd is not None:
        check(line.lwd)
        check_launcher(words)
    elif words[:1] == ["make"]:
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[:1] == ["python"]:
        script = ROOT.joinpath(words[1]).read_text()
        assert all(f'"{word}"' in script for word in words if word.startswith("--"))
    else:
        assert not words or words[0] in SHELL, f"what is {words[0]}?"


def check_launcher(words: list[str]) -> None:
    """torchrun's and accelerate's own parsers take what is before ``-m lwd``; ``N`` stands for a number."""
    given = ["0" if word == "N" else word for word in words]
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        get_args_parser().parse_args(given[1:])
    elif words[:2] == ["accelerate", "launch"]:
        from accelerate.commands.launch import launch_command_parser

        launch_command_parser().parse_args(given[2:])
    else:
        assert words[0] == "lwd"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lwd train --config my.yaml train.stepps=3", "did you mean 'steps'"),
        ("lwd train --config mine.yaml", "mine.yaml"),
        ("torchrun --nproc-per-node 2 -m lwd sample -c my.yaml --nums 3", "--nums"),
        ("lwd evaluate runs/x --references y.npz", "--references"),
        ("lwd schedules show x.json", "no command"),
        ("lwd ema runs/x --sigma-rel wide", "valid number"),
        ("make demos", "assert None"),
        ("scp a b", "what is scp"),
    ],
)
def test_what_is_wrong_is_found(line: str, said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)):
        check_line(Line("page", 1, tuple(shlex.split(line))))


def test_commands_within_sentences_exist_and_have_the_options_that_they_name() -> None:
    """`lwd ...` in backticks, in one line; with words that stand for others, so that they cannot be parsed."""
    for page, file in PAGES.items():
        for text in re.findall(r"`lwd ([a-z][^`|\n]*)`", file.read_text(encoding="utf-8")):
            command, rest = found(text.split())
            assert not rest or not hasattr(command, "commands"), f"{page}: lwd {text}"
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert {word for word in rest if word.startswith("-")} <= known, f"{page}: lwd {text}"
