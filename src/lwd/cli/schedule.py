"""`lwd schedule`: nothing but argument parsing and calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lwd.console import one_line_errors, show
from lwd.errors import UserError

if TYPE_CHECKING:
    from lwd.schedules import Schedule

app = typer.Typer(no_args_is_help=True, help="Look at schedules, compare, fit and write them.")

Source = Annotated[str, typer.Argument(metavar="NAME|FILE", help="offset:0.3, power:2, synchronous, or a file")]
Groups = Annotated[str | None, typer.Option(help="With a name: the groups, in the order of the channels, as A,B")]
Leader = Annotated[str | None, typer.Option(help="The leading group; of a learned schedule its one fixed curve")]


@app.command("show")
def schedule_show(
    source: Source,
    groups: Groups = None,
    leader: Leader = None,
    png: Annotated[Path | None, typer.Option(help="Draw the curves into this file, too")] = None,
) -> None:
    """Local times at eleven global ones, the formulas, and where the schedule came from."""
    from lwd.files import check_place
    from lwd.plots.schedule import save_picture, table

    with one_line_errors():
        if png is not None:
            check_place(png)
        schedule = _open([source], groups, leader)[0][0]
        show(table(schedule))
        if png is not None:
            save_picture(schedule, png)
            show(f"wrote {png}")


@app.command("compare")
def schedule_compare(first: Source, second: Source, groups: Groups = None, leader: Leader = None) -> None:
    """The largest distance of each group's local times when the leader is at the same one."""
    from lwd.schedules.distance import schedule_distances

    with one_line_errors():
        (one, other), leader = _open([first, second], groups, leader)
        ahead = _ahead(leader, one.names)
        for name, distance in schedule_distances(one, other, ahead).items():
            show(f"{name}: at most {distance:.4f} apart, at equal times of {ahead}")


@app.command("fit")
def schedule_fit(
    source: Annotated[
        str, typer.Argument(metavar="CSV|NAME|FILE", help="Points tau,t in a .csv file, or another schedule")
    ],
    family: Annotated[str, typer.Option(help="polynomial, convex-spline, rational-quadratic or power")] = "polynomial",
    size: Annotated[int | None, typer.Option(help="The degree, or the bins; default: the family's")] = None,
    groups: Groups = None,
    leader: Leader = None,
    out: Annotated[Path | None, typer.Option(help="The schedule.json to write")] = None,
) -> None:
    """The nearest curves of a family, by least squares; prints how near, and the largest distance on the points.

    Points give the others' local times at those of the leader. From a schedule the leader's curve is kept.
    """
    from lwd.files import check_new_place
    from lwd.plots.schedule import table
    from lwd.probe.fit import fit_points, fit_schedule, read_points, start_of

    with one_line_errors():
        if out is not None:
            check_new_place(out)
        start = start_of(family, size)
        if source.endswith(".csv"):
            names = _names(groups)
            if names is None:
                raise UserError(f"{source}: points say nothing of groups; give --groups A,B --leader B")
            ahead = _ahead(leader, names)
            points = read_points(Path(source), [name for name in names if name != ahead])
            schedule, fits = fit_points(points, names, ahead, start)
        else:
            (given,), leader = _open([source], groups, leader)
            schedule, fits = fit_schedule(given, _ahead(leader, given.names), start)
        schedule.note_origin(f"{family} fitted to {source}")
        show(table(schedule))
        for name, fit in fits.items():
            show(f"{name}: root mean square {fit.rms:.2g}, at most {fit.largest:.2g} from {source}")
        if out is not None:
            schedule.save(out)
            show(f"wrote {out}")


@app.command("save")
def schedule_save(
    source: Source,
    file: Annotated[Path, typer.Argument(help="The schedule.json to write")],
    groups: Groups = None,
    leader: Leader = None,
) -> None:
    """Write a schedule by its name, as beside a converted network: MODEL/schedule.json."""
    from lwd.files import check_new_place

    with one_line_errors():
        check_new_place(file)
        schedule = _open([source], groups, leader)[0][0]
        schedule.note_origin(f"{source}, by lwd schedule save")
        schedule.save(file)
        show(f"wrote {file}: schedule {schedule.hash()} of {', '.join(schedule.names)}")


@app.command("infer")
def schedule_infer(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, or a model folder of lwd convert or export")],
    data: Annotated[Path, typer.Option(help="Encoded data, or a folder of shards, of the kind it was trained on")],
    images: Annotated[int, typer.Option(min=2, help="How many latents are looked at")] = 192,
    noises: Annotated[int, typer.Option(min=1, help="Draws of noise for each")] = 1,
    network: Annotated[str | None, typer.Option(help="model.name of a network of your own")] = None,
    out: Annotated[Path | None, typer.Option(help="The schedule.json to write, e.g. CHECKPOINT/schedule.json")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw what was found into this file")] = None,
) -> None:
    """Which schedule a network of two groups was trained under, found in the network: where it is best.

    With an interval; a network that is equally good everywhere, as one of joint times, gets no answer and exit code 1.
    """
    from lwd.files import check_new_place, check_place
    from lwd.stages.infer import UNCLEAR, infer, on_screen

    with one_line_errors():
        if out is not None:
            check_new_place(out)
        if png is not None:
            check_place(png)
        inferred = infer(checkpoint, data, images, noises, network)
        show(on_screen(inferred))
        if png is not None:
            inferred.draw(png)
            show(f"wrote {png}")
        if not inferred.found.clear:
            show(f"{UNCLEAR}; nothing is written")
            raise typer.Exit(1)
        if out is not None:
            schedule = inferred.schedule
            schedule.note_origin(f"inferred from {checkpoint} by lwd schedule infer")
            schedule.save(out)
            show(f"wrote {out}: schedule {schedule.hash()}, the simplest inside of the interval")


def _names(groups: str | None) -> list[str] | None:
    """The groups of ``--groups``; None where it is left out."""
    names = None if groups is None else [name.strip() for name in groups.split(",")]
    if names is not None and (not all(names) or len(set(names)) < len(names)):
        raise UserError(f"--groups {groups}: names of groups, each once, as A,B")
    return names


def _open(sources: Sequence[str], groups: str | None, leader: str | None) -> tuple[list[Schedule], str | None]:
    """The schedules of files and names, and the leader: the one given, else the one fixed curve of the first file.

    Raises UserError where files have other groups than ``groups`` or each other, and where a name needs more than that.
    """
    from lwd.schedules import Schedule
    from lwd.schedules.choice import ScheduleChoice

    choices = [ScheduleChoice.named(source, "schedule") for source in sources]
    files = {choice.path: Schedule.load(choice.path) for choice in choices if choice.path is not None}
    first = next(iter(files.values()), None)
    names = _names(groups) or (list(first.names) if first is not None else None)
    if names is None:
        raise UserError(f"{sources[0]}: a name says nothing of groups; give --groups A,B --leader B")
    if leader is None and first is not None:
        fixed = [name for name in first.names if name not in first.learned]
        leader = fixed[0] if len(fixed) == 1 else None
    if leader is not None:
        _ahead(leader, names)
    for path, schedule in files.items():
        if list(schedule.names) != names:
            raise UserError(f"{path}: has groups {','.join(schedule.names)}, not {','.join(names)}")
    if any(choice.kind in ("offset", "power") for choice in choices):
        _ahead(leader, names)
    made = [files[choice.path] if choice.path else choice.fixed(names, leader or names[0]) for choice in choices]
    return [schedule for schedule in made if schedule is not None], leader


def _ahead(leader: str | None, names: Sequence[str]) -> str:
    """The leader, which must be known and one of ``names``."""
    if leader is None or leader not in names:
        found = "" if leader is None else f" {leader}: no such group"
        raise UserError(f"--leader{found}: give one of {', '.join(names)}")
    return leader
