"""`lwd convert`: SFD's checkpoints to model folders, with the schedule that the user gives, and back."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from lwd.errors import UserError
from lwd.files import atomic_path, check_new_place, write_text
from lwd.models.lightningdit import LightningDiT
from lwd.models.pretrained import SCHEDULE, load_lightningdit
from lwd.models.sfd import SFD_LAYOUT, SFD_LEADER, Weights, load_sfd_checkpoint, save_sfd_checkpoint
from lwd.models.sizes import name_of
from lwd.runtime.hub import save_model
from lwd.schedules import Schedule
from lwd.schedules.choice import ScheduleChoice

CARD = """# {name}, converted

The {which} weights of `{source}`, by `lwd convert` of
[lwd](https://arxiv.org/abs/2606.19662) (Learning When to Denoise).

| | |
|---|---|
| network | {network} |
| schedule | {schedule} |
"""


def from_sfd(source: Path, target: Path, which: str = "ema", choice: ScheduleChoice | None = None) -> str:
    """Convert SFD's ``.pt`` to a folder with model, card and the schedule ``choice``; returns a line about it.

    The file does not say under which schedule the network was trained: without a ``choice`` the folder has none.
    Raises UserError for a file that cannot be read, a schedule of other groups, and where ``target`` exists.
    """
    if which not in get_args(Weights):
        raise UserError(f"--which {which}: SFD's checkpoints hold {' and '.join(get_args(Weights))}")
    check_new_place(target)
    schedule = None if choice is None else _given(choice)
    model = load_sfd_checkpoint(source, cast(Weights, which))
    with atomic_path(target) as temporary:
        temporary.mkdir()
        save_model(model, temporary)
        if schedule is not None:
            schedule.save(temporary / SCHEDULE)
        write_text(temporary / "README.md", _card(model, source, which, schedule))
    said = (
        f"schedule: {choice}"
        if choice
        else "no schedule: the file names none, and sampling needs one: --schedule, or lwd schedule infer"
    )
    return f"wrote {target}: {_describe(model)}, {which} weights, {said}"


def to_sfd(source: Path, target: Path) -> str:
    """Convert a model folder to SFD's ``.pt``; returns a line that says what it is."""
    check_new_place(target)
    model = load_lightningdit(source)
    save_sfd_checkpoint(model, target)
    return f"wrote {target}: {_describe(model)}, in SFD's form"


def _given(choice: ScheduleChoice) -> Schedule:
    """Make the schedule of SFD's groups that ``choice`` names, which notes who gave it."""
    schedule = choice.fixed(SFD_LAYOUT.names, SFD_LEADER)
    if schedule is None:
        assert choice.path is not None, "a choice that was named on the command line has a path"
        schedule = Schedule.load(choice.path)
        schedule.check(SFD_LAYOUT, str(choice.path))
    schedule.note_origin(f"{choice}, given to lwd convert")
    return schedule


def _card(model: LightningDiT, source: Path, which: str, schedule: Schedule | None) -> str:
    said = "none was given to `lwd convert`, and the checkpoint names none: no schedule.json"
    if schedule is not None:
        said = f"hash `{schedule.hash()}`, in schedule.json: {schedule.origin}"
    return CARD.format(name=name_of(model), which=which, source=source.name, network=_describe(model), schedule=said)


def _describe(model: LightningDiT) -> str:
    parameters = sum(p.numel() for p in model.parameters())
    return f"{name_of(model)}, {parameters / 1e6:.1f} M parameters, groups {model.layout}, {model.num_classes} classes"
