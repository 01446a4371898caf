"""`lwd evaluate` and `lwd evaluate compare`: nothing but argument parsing and calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from lwd.cli.following import following
from lwd.console import one_line_errors, show
from lwd.errors import UserError

if TYPE_CHECKING:
    from lwd.stages.evaluate import Evaluation, Images
    from lwd.stages.experiment import Experiment


class _RunIsDefault(TyperGroup):
    """A group whose subcommand ``run`` may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunIsDefault,
    no_args_is_help=True,
    help="FID, sFID, Inception Score, precision, recall and more: `lwd evaluate SAMPLES --reference REF`.",
)


@app.command("run")
def evaluate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SAMPLES] [KEY.SUB=VALUE]...",
            help="A folder of `lwd sample` or of pictures, an .npz, saved features, or (with --config) a checkpoint",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", "-r", help="ADM's .npz, an .npz or folder of images, or saved statistics"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The experiment; without --reference, its held-out images")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Keep features in this folder, and find them again")] = None,
    out: Annotated[Path | None, typer.Option(help="Default: evaluation.json beside the samples")] = None,
    save_statistics: Annotated[
        Path | None, typer.Option(help="Also write the samples' statistics, as a reference for later (.safetensors)")
    ] = None,
    save_features: Annotated[Path | None, typer.Option(help="Also write the samples' features (.safetensors)")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved config and stop")] = False,
) -> None:
    """Compare samples with a reference; `run` may be left out. On several processes: `torchrun -m lwd evaluate ...`."""
    with one_line_errors():
        options = {
            "reference": reference,
            "cache": cache,
            "out": out,
            "save_statistics": save_statistics,
            "save_features": save_features,
        }
        show(_evaluate(arguments or [], config, options, dry_run))


def _evaluate(arguments: list[str], config: Path | None, options: dict[str, Path | None], dry_run: bool) -> str:
    from lwd.config import dump, load
    from lwd.stages.evaluate import EvaluateOnly, run, save_only
    from lwd.stages.evaluate.table import report
    from lwd.stages.experiment import Experiment
    from lwd.stages.sample.stream import is_checkpoint

    names = [argument for argument in arguments if "=" not in argument or Path(argument).exists()]
    if len(names) > 1:
        raise UserError(
            f"{names[1]!r}: one set of samples at a time, {names[0]!r} is one already; overrides are KEY=VALUE"
        )
    overrides = [argument for argument in arguments if argument not in names]
    given = {"samples": Path(names[0]) if names else None, **options}
    update = {key: value for key, value in given.items() if value is not None}
    loaded: Experiment | EvaluateOnly
    loaded = load(EvaluateOnly, None, overrides) if config is None else load(Experiment, config, overrides)
    settings = loaded.evaluate.model_copy(update=update)
    loaded = loaded.model_copy(update={"evaluate": settings})
    if dry_run:
        return dump(loaded).rstrip()
    if (
        isinstance(loaded, EvaluateOnly)
        and settings.reference is None
        and (settings.save_statistics or settings.save_features)
    ):
        save_only(loaded)
        return ""

    def on_measured(record: Evaluation) -> None:
        show(report(record))

    if isinstance(loaded, Experiment) and settings.samples is not None and is_checkpoint(settings.samples):
        record = run(*_sampled(loaded, settings.samples), on_measured)
    else:
        record = run(loaded, on_measured=on_measured)
    if record is None:
        return ""
    return (
        f"wrote {record.path}" if config is None else f"wrote {record.path}\n{following('evaluate', config, overrides)}"
    )


def _sampled(experiment: Experiment, checkpoint: Path) -> tuple[Experiment, Images]:
    """A checkpoint's samples as they are made; the record goes where `lwd sample` would put them."""
    from lwd.stages.sample.stream import SampleStream

    sampling = experiment.sample.model_copy(update={"checkpoint": checkpoint})
    name = sampling.name or f"{checkpoint.parent.name}-{checkpoint.name}"
    out = experiment.evaluate.out or experiment.output / "samples" / f"{name}.evaluation.json"
    batch = max(experiment.evaluate.batch, sampling.batch)  # what the sampler has in hand at once
    settings = experiment.evaluate.model_copy(update={"out": out, "batch": batch})
    experiment = experiment.model_copy(update={"sample": sampling, "evaluate": settings})
    return experiment, SampleStream(experiment)


@app.command("compare")
def evaluate_compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders with an evaluation.json, or such files")],
    markdown: Annotated[bool, typer.Option("--markdown", help="As a markdown table")] = False,
    published: Annotated[bool, typer.Option(help="Show the published rows of ImageNet at 256 pixels below")] = True,
) -> None:
    """Several evaluations in one table; refused where network, reference or settings differ."""
    from lwd.stages.evaluate import compare

    with one_line_errors():
        show(compare(runs, published, markdown))
