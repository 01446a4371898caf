"""The command line: `lwd COMMAND --config FILE key.sub=value ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwd import __version__
from lwd.cli import actions
from lwd.cli.data import app as data_app
from lwd.cli.evaluate import app as evaluate_app
from lwd.cli.following import following
from lwd.cli.init import init
from lwd.cli.keys import keys
from lwd.cli.plan import check, plan
from lwd.cli.recipes import recipes
from lwd.cli.schedule import app as schedule_app
from lwd.cli.stage_help import STAGES
from lwd.cli.weights import convert, ema, export
from lwd.console import one_line_errors, show
from lwd.launcher import check_launcher

if TYPE_CHECKING:
    from lwd.stages.experiment import Experiment

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Learning When to Denoise: learn the schedule by which the parts of a latent are denoised, then train, sample
    and evaluate a diffusion transformer under it. Configs to begin with: `lwd init` for a folder of
    pictures, `lwd recipes`.

    The stages, each leaving files that the next one reads: **encode** (images to latent shards), **semvae** (train a
    semantic VAE on their features), **sweep** (find lambda and the schedule; **probe** is one lambda), **train**,
    **sample**, **evaluate**, **report**. First: `lwd demo`.

    Every stage takes the same YAML file and overrides in YAML syntax: `lwd train --config digits.yaml
    train.steps=500 train.schedule.kind=synchronous`. Several processes: `torchrun --nproc-per-node 2 -m lwd train ...`.
    """,
)

app.add_typer(evaluate_app, name="evaluate")
app.add_typer(data_app, name="data")
app.add_typer(schedule_app, name="schedule")
for command in (init, keys, recipes, plan, check, export, ema, convert):
    app.command(command.__name__)(command)

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="YAML file of the experiment, e.g. one of `lwd recipes`")
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Overrides, in YAML syntax")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and print the resolved config, and stop")]


def _perform(
    action: Callable[[Experiment], str],
    config: Path,
    overrides: Sequence[str],
    dry_run: bool,
    check: Callable[[Experiment], None] | None = None,
    stage: str = "",
) -> None:
    """Load the config, then ``check`` and print it, or run ``action`` and print its result and what comes next."""
    from lwd.config import dump, load
    from lwd.stages.experiment import Experiment

    with one_line_errors():
        if stage == "sample" and config.is_dir():
            from lwd.stages.sample.released import released

            experiment = load(Experiment, None, overrides, start=released(config))
        else:
            experiment = load(Experiment, config, overrides)
        if dry_run and check is not None:
            check(experiment)
        show(dump(experiment).rstrip() if dry_run else action(experiment))
        if not dry_run:
            show(following(stage, config, overrides, experiment))


def _stage(name: str, action: Callable[[Experiment], str], check: Callable[[Experiment], None] | None = None) -> None:
    """Register one stage; ``check`` is what a dry run does beside printing."""

    def command(config: ConfigOption, overrides: Overrides = None, dry_run: DryRun = False) -> None:
        _perform(action, config, overrides or (), dry_run, check, name)

    app.command(name, help=STAGES[name].text())(command)


_stage("encode", actions.encode, actions.check_encode)
_stage("semvae", actions.semvae)
_stage("probe", actions.probe, actions.check_probe)


@app.command("sweep", help=STAGES["sweep"].text())
def _sweep_command(
    config: ConfigOption,
    overrides: Overrides = None,
    weights: Annotated[
        str | None, typer.Option("--lambda", help="auto, or 0.01,0.03,0.1: short for sweep.kinetic_weights")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="probes, or map: on the map of lwd map; short for sweep.method")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    short = [] if weights is None else [f"sweep.kinetic_weights={weights if weights == 'auto' else f'[{weights}]'}"]
    short += [] if method is None else [f"sweep.method={method}"]
    _perform(actions.sweep, config, [*(overrides or ()), *short], dry_run, stage="sweep")


_stage("train", actions.train, actions.check_train)


_stage("map", actions.map)


@app.command("sample", help=STAGES["sample"].text())
def _sample_command(
    config: ConfigOption,
    overrides: Overrides = None,
    num: Annotated[int | None, typer.Option("--num", help="How many: short for sample.num")] = None,
    trajectory: Annotated[
        int | None, typer.Option("--trajectory", help="Of how many to draw the path, too: short for sample.trace")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    short = {"sample.num": num, "sample.trace": trajectory}
    given = [f"{key}={value}" for key, value in short.items() if value is not None]
    _perform(actions.sample, config, [*(overrides or ()), *given], dry_run, stage="sample")


@app.command("score", help=STAGES["score"].text())
def _score_command(
    config: ConfigOption,
    overrides: Overrides = None,
    schedules: Annotated[
        list[str] | None,
        typer.Option("--schedule", "-s", help="synchronous, offset:0.3, power:2, or a file; again for more"),
    ] = None,
    suggest: Annotated[
        str | None, typer.Option("--suggest", help="loss, nats, distance or paper: also write the best by that")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    short = [] if suggest is None else [f"score.suggest={suggest}"]
    short += [f"score.schedules=[{', '.join(schedules)}]"] if schedules else []
    _perform(actions.score, config, [*(overrides or ()), *short], dry_run, stage="score")


_stage("report", actions.report)


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="The folder of a run: OUTPUT/train/NAME, OUTPUT/probe, ...")],
    once: Annotated[bool, typer.Option("--once", help="Print the screen once and stop")] = False,
) -> None:
    """One screen about a run, from its log as it grows: progress, losses, speed, and the curve of a probe."""
    from lwd.stages.watch import watch as show

    with one_line_errors():
        show(folder, once)


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="Where runs lie, at any depth")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs")] = False,
) -> None:
    """The runs under a folder, the newest first: how far each is, whether it still goes, its last figures."""
    from lwd.stages.watch.overview import overview, print_overview

    with one_line_errors():
        print_overview(overview(folder), as_json)


@app.command()
def demo(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Another recipe than `lwd recipes digits` copies")
    ] = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
) -> None:
    """The whole method on 1 797 real digits, in minutes on a laptop: ends with OUTPUT/report.html."""
    from lwd.recipes import recipe

    file = config or recipe("digits")
    if dry_run:
        _perform(lambda experiment: "", file, overrides or (), dry_run)
        return
    with one_line_errors():
        from lwd.stages.demo import run

        actions.one_process_only("demo")
        show(f"open {run(file, overrides or ())} in a browser")


@app.callback(invoke_without_command=True)
def _first(version: Annotated[bool, typer.Option("--version", help="Print the version")] = False) -> None:
    with one_line_errors():
        check_launcher()
    if version:
        show(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point."""
    app(args=[_at_home(argument) for argument in sys.argv[1:]])


def _at_home(argument: str) -> str:
    """``--option=~/x`` as ``--option ~/x`` reaches us: no shell expands ~ after an equals sign."""
    name, separator, value = argument.partition("=")
    if not (separator and name.startswith("--") and value.startswith("~/")):
        return argument
    return f"{name}={Path(value).expanduser()}"
