"""`lwd plan` and `lwd check`: nothing but argument parsing and calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwd.console import complain, one_line_errors, show
from lwd.errors import UserError

if TYPE_CHECKING:
    from lwd.stages.experiment import Experiment

Words = Annotated[
    list[str] | None, typer.Argument(metavar="CONFIG [KEY.SUB=VALUE]...", help="The YAML file, and overrides")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="The YAML file, as the stages take it")]


def plan(
    words: Words = None,
    config: ConfigOption = None,
    card: Annotated[str, typer.Option(help="A100, H100, H200, B200 or 4090")] = "H100",
    gpus: Annotated[int, typer.Option(help="How many of them: processes of torchrun")] = 1,
    tflops: Annotated[float | None, typer.Option(help="Instead of the card's: nominal rate, 1e12 operations/s")] = None,
    memory: Annotated[float | None, typer.Option(help="Instead of the card's: GiB")] = None,
    price: Annotated[float | None, typer.Option(help="Instead of the assumed one: US$ an hour and card")] = None,
    mfu: Annotated[float | None, typer.Option(help="The share of that rate which is reached; default 0.4")] = None,
    images: Annotated[int | None, typer.Option(help="Of the training split, where the data is not here")] = None,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON")] = False,
) -> None:
    """What an experiment will take: parameters, memory by part, disk, hours and cost on a card; nothing is run.

    `lwd plan xl.yaml --card H200 --gpus 8 --images 1281167`. Memory is measured on tensors without content.
    """
    with one_line_errors():
        experiment = _load(words or [], config)
        from lwd.files import to_json
        from lwd.stages.plan import machine_of, on_screen
        from lwd.stages.plan import plan as make

        made = make(experiment, machine_of(experiment, card, gpus, tflops, memory, price, mfu), images)
        show(to_json(made.to_json()).rstrip() if json else on_screen(made))
        for line in made.warnings if json else ():
            complain(line)


def check(words: Words = None, config: ConfigOption = None) -> None:
    """Is a run healthy? A first look at data and network, as at the start of `train`.

    Says what looks wrong and changes nothing; numbers that are not finite are an error.
    """
    with one_line_errors():
        experiment = _load(words or [], config)
        from lwd.health import table
        from lwd.stages.train.run import look

        findings, said = look(experiment)
        show(table(findings, f"train {experiment.train.name}: a first look, at one batch"))
        if said:
            complain(said)


def _load(words: list[str], config: Path | None) -> Experiment:
    """The experiment of ``--config``, else of the first word; the other words are overrides."""
    from lwd.config import load
    from lwd.stages.experiment import Experiment

    if config is None and (not words or "=" in words[0]):
        raise UserError("name the config first, e.g. digits.yaml train.batch=64")
    file, overrides = (config, words) if config is not None else (Path(words[0]), words[1:])
    return load(Experiment, file, overrides)
