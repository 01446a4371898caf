"""Checkpoints: folders ``step-00001000`` that are either whole or absent, with tensors in safetensors only."""

from __future__ import annotations

import errno
import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field, NonNegativeInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

import lwd
from lwd.config import Config, parse
from lwd.errors import UserError
from lwd.files import atomic_path, checksum, read_json, write_json
from lwd.runtime.sharding import divided_like, gather, is_divided, whole

STATE = "state.json"
ADAM = ("exp_avg", "exp_avg_sq")
STATELESS = "stateless"


class Damaged(UserError):  # noqa: N818 - what the checkpoint is
    """A checkpoint that is not what was written; its line ends with what to do."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        remedy = f"; remove {path} to go on from the checkpoint before it, as compute.resume=previous does by itself"
        super().__init__(message if path is None else message + remedy)


class State(Config):
    """What a checkpoint says of itself, in `STATE`."""

    step: NonNegativeInt
    recipe: dict[str, Any]
    versions: dict[str, str]
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    """Of every other file in its folder."""
    checksum: str | None = None
    """Of all the rest of this; None in checkpoints of before there was one."""


class Saveable(Protocol):
    """What can write itself into a folder."""

    def save(self, folder: Path) -> None:
        """Write everything needed to go on."""


class Loadable(Protocol):
    """What can read itself back."""

    def load(self, folder: Path) -> None:
        """Read what was saved."""


Content = Mapping[str, Tensor] | str
"""Of one file: tensors (safetensors) or text."""


@dataclass(frozen=True)
class Files:
    """Files by relative name, with what goes into them."""

    contents: Mapping[str, Content]

    def copied(self) -> Files:
        """The same on the CPU and in memory of its own, so that training may go on while it is written."""
        return Files(
            {
                name: content
                if isinstance(content, str)
                else {key: whole(tensor.detach()).to("cpu", copy=True) for key, tensor in content.items()}
                for name, content in self.contents.items()
            }
        )

    def join(self) -> None:
        """Where tensors are sharded, the other processes' part in the main one's `copied`."""
        for content in self.contents.values():
            gather([] if isinstance(content, str) else content.values())

    def save(self, folder: Path) -> None:
        """Write all of them."""
        for name, content in self.contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8")
            else:
                save_tensors(path, content)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` steps lies."""
    return folder / f"step-{step:08d}"


def find_checkpoints(folder: Path) -> dict[int, Path]:
    """Complete checkpoints by step, oldest first."""
    found = {int(m[1]): p for p in folder.glob("step-*") if (m := re.fullmatch(r"step-(\d+)", p.name))}
    return dict(sorted(found.items()))


def save_checkpoint(folder: Path, step: int, content: Saveable, recipe: Mapping[str, Any]) -> Path:
    """Write the checkpoint after ``step`` steps atomically; ``recipe`` is what must be equal for a resume."""
    path = checkpoint_path(folder, step)
    with atomic_path(path) as temporary:
        temporary.mkdir()
        content.save(temporary)
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        sums = {str(file.relative_to(temporary)): checksum(file) for file in files}
        state = {"step": step, "recipe": dict(recipe), "versions": versions(), "sha256": sums}
        write_json(temporary / STATE, state | {"checksum": _checksum(state)})
    return path


def load_checkpoint(path: Path, task: Loadable, recipe: Mapping[str, Any]) -> int:
    """Read a checkpoint into ``task``; returns its step.

    Raises UserError where it was made under another recipe, and `Damaged` where it is not what was written.
    """
    state = read_state(path)
    if difference := first_difference(state.recipe, dict(recipe)):
        raise UserError(
            f"{path}: checkpoint of another config: {difference}; "
            "restore the setting, choose another output, or start afresh with compute.resume=false, which removes it"
        )
    verify(path, state)
    try:
        task.load(path)
    except UserError as error:
        raise Damaged(str(error), path) from error
    return state.step


def read_state(path: Path) -> State:
    """What a checkpoint says of itself.

    Raises `Damaged` where it is none, or says another step than its name; UserError where it is not named like one.
    """
    file, named = path / STATE, re.fullmatch(r"step-(\d+)", path.name)
    if named is None and not file.is_file():
        raise UserError(f"{path}: no checkpoint of lwd, which holds {STATE}; name a folder OUTPUT/train/NAME/step-...")
    try:
        content = _mapping(read_json(file))
        state = parse(State, content, f"{file}: not the state of a checkpoint")
    except UserError as error:
        raise Damaged(str(error), path) from error
    if named and int(named[1]) != state.step:
        raise Damaged(f"{file}: says step {state.step}, its folder step {int(named[1])}", path)
    if state.checksum not in (None, _checksum(content)):
        raise Damaged(f"{file}: damaged, or changed by hand: its checksum is of other content", path)
    return state


def _checksum(state: Mapping[str, Any]) -> str:
    """SHA-256 of all but the checksum, however it is laid out."""
    content = {key: value for key, value in state.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _mapping(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def verify(path: Path, state: State, *parts: str) -> None:
    """Raise `Damaged` where a file of the checkpoint is missing, too many, or not what was written.

    ``parts``: the files and folders in it that are about to be read, and so whose content is looked at; none: all.
    """
    present = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} - {STATE}
    present -= {name for name in present if any(part.startswith(".") for part in Path(name).parts)}
    for name in sorted(state.sha256.keys() ^ present):
        what = "no checksum is known of it" if name in present else "damaged or missing"
        raise Damaged(f"{path / name}: {what}", path)
    for name, digest in state.sha256.items():
        wanted = not parts or any(name == part or name.startswith(f"{part}/") for part in parts)
        if wanted and checksum(path / name) != digest:
            raise Damaged(f"{path / name}: damaged or missing", path)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"lwd": lwd.__version__, "torch": str(torch.__version__), "python": platform.python_version()}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], notes: dict[str, str] | None = None) -> None:
    """One safetensors file, ``notes`` in its header; raises OSError where it cannot be written."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, notes)
    except SafetensorError as error:
        raise OSError(errno.EIO, " ".join(str(error).split()), str(path)) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read one safetensors file; raises UserError where it is missing or damaged."""
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from error


def load_module(module: nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file; raises UserError that names the first key that does not fit."""
    fill_module(module, load_tensors(path), str(path))


def fill_module(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill a module; raises UserError, starting with ``where``, that names the first key that does not fit."""
    wanted = module.state_dict()
    check_tensors(tensors, wanted, where)
    module.load_state_dict({key: divided_like(tensor, wanted[key]) for key, tensor in tensors.items()})


def check_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Raise UserError, starting with ``where``, for the first key or shape of ``tensors`` that is not ``wanted``."""
    for key in [*wanted, *tensors]:
        if key not in tensors:
            raise UserError(f"{where}: key {key!r} is missing; the file is of another model")
        if key not in wanted:
            raise UserError(f"{where}: unknown key {key!r}; the file is of another model")
        if tensors[key].shape != wanted[key].shape:
            raise UserError(
                f"{where}: {key!r} has shape {tuple(tensors[key].shape)}, the model needs {tuple(wanted[key].shape)}"
            )


def optimizer_tensors(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by parameter name, e.g. ``blocks.0.attn.qkv.weight/exp_avg``.

    One that keeps none, as plain SGD, says so by the one key `STATELESS`.
    """
    state = {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    return state or {STATELESS: torch.ones(())}


def load_optimizer(module: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took, each tensor on its parameter's device."""
    if set(tensors) == {STATELESS}:
        return
    parameters = dict(module.named_parameters())
    saved = {key.rpartition("/")[0] for key in tensors}
    if missing := [name for name, p in parameters.items() if p.requires_grad and name not in saved]:
        raise UserError(f"optimizer state of {missing[0]!r} is missing; the checkpoint is damaged")
    optimizer.state.clear()
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        if name not in parameters:
            raise UserError(f"optimizer state of {name!r}, which this model does not have")
        parameter = parameters[name]
        same = tensor.shape == parameter.shape  # of all moments but a factored optimiser's, and no counter
        if tensor.ndim and not same and (is_divided(parameter) or entry in ADAM):
            raise UserError(f"optimizer state {key!r} has shape {tuple(tensor.shape)}, not {tuple(parameter.shape)}")
        fused = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
        device = parameter.device if tensor.ndim or fused else torch.device("cpu")
        optimizer.state[parameter][entry] = (divided_like(tensor, parameter) if same else tensor).to(device)


def first_difference(old: Any, new: Any, key: str = "") -> str | None:
    """The first setting in which two recipes differ, for people; None where they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(n for n in new if n not in old)]:
            if found := first_difference(old.get(name), new.get(name), f"{key}.{name}" if key else name):
                return found
        return None
    return None if old == new else f"{key} was {old!r}, now {new!r}"
