"""`lwd convert`: checkpoints on disk, from SFD's form to this project's and back."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from lwd.errors import UserError
from lwd.files import atomic_path
from lwd.models.lightningdit import LightningDiT
from lwd.models.pretrained import load_model, save_model
from lwd.models.sfd import SFD_LEADER, Weights, load_sfd_checkpoint, save_sfd_checkpoint
from lwd.models.sizes import name_of
from lwd.schedules import Schedule

SCHEDULE = "schedule.json"


def from_sfd(source: Path, target: Path, which: str = "ema") -> str:
    """SFD's ``.pt`` -> a folder with model and SFD's offset schedule; returns a line that says what it is."""
    if which not in get_args(Weights):
        raise UserError(f"--which {which}: SFD's checkpoints hold {' and '.join(get_args(Weights))}")
    _must_be_free(target)
    model = load_sfd_checkpoint(source, cast(Weights, which))
    with atomic_path(target) as temporary:
        temporary.mkdir()
        save_model(model, temporary)
        Schedule.offset(model.layout.names, SFD_LEADER).save(temporary / SCHEDULE)
    return f"wrote {target}: {_describe(model)}, {which} weights, schedule: offset 0.3"


def to_sfd(source: Path, target: Path) -> str:
    """A model folder -> SFD's ``.pt``; returns a line that says what it is."""
    _must_be_free(target)
    model = load_model(source)
    save_sfd_checkpoint(model, target)
    return f"wrote {target}: {_describe(model)}, in SFD's form"


def _must_be_free(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target}: exists already; remove it or choose another name")


def _describe(model: LightningDiT) -> str:
    parameters = sum(p.numel() for p in model.parameters())
    return f"{name_of(model)}, {parameters / 1e6:.1f} M parameters, groups {model.layout}, {model.num_classes} classes"
