"""`lwd ema`: an average of any width, from the snapshots of a run with ``train.posthoc_ema`` (EDM2, Section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lwd.errors import UserError
from lwd.files import check_new_place, read_text
from lwd.runtime.checkpoint import Files, checkpoint_path, find_checkpoints, read_state, save_checkpoint, verify
from lwd.runtime.hub import CONFIG, WEIGHTS
from lwd.training.power_ema import SNAPSHOTS, WIDEST, coefficients, find_averages, misfit

FARTHEST = 0.1
"""The largest misfit of a profile that is still called the one asked for."""


def reconstruct(run: Path, width: float, step: int | None = None, out: Path | None = None) -> str:
    """Write the average of ``width`` (sigma_rel) after ``step`` steps to OUT/step-*; returns a line about it.

    ``step`` may lie anywhere between the first snapshot and the last, its default. The folder holds what sampling and
    exporting need of a checkpoint. Raises UserError where there are no snapshots, all profiles they allow are more than
    10 % off, or the folder exists.
    """
    if not 0 < width < WIDEST:
        raise UserError(f"--sigma-rel {width:g}: must lie between 0 and {WIDEST:.4f}, the width of the plain mean")
    found = find_checkpoints(run / SNAPSHOTS)
    if not found:
        raise UserError(f"{run / SNAPSHOTS}: no snapshots here; train with train.posthoc_ema=[0.05,0.1]")
    step = max(found) if step is None else step
    if not min(found) <= step <= max(found):
        raise UserError(f"--step {step}: the snapshots of {run} run from step {min(found)} to {max(found)}")
    out = out or run.with_name(f"{run.name}-sigma-{width:g}")
    check_new_place(checkpoint_path(out, step))
    until = min(s for s in found if s >= step)  # the one after helps with the steps since the one before
    used = {s: path for s, path in found.items() if s <= until}
    recipe = _check(list(used.values()))
    averages = [(s, w, file) for s, path in used.items() for w, file in find_averages(path).items()]
    times, widths, files = zip(*averages, strict=True)
    parts = coefficients(times, widths, step, width)
    off = misfit(parts, times, widths, step, width)
    if off > FARTHEST:
        nearest = min(found, key=lambda s: abs(s - step))
        raise UserError(
            f"--sigma-rel {width:g} at step {step}: the snapshots only allow a profile {100 * off:.2g} % off; "
            f"take a width nearer to {', '.join(f'{w:g}' for w in sorted(set(widths)))}, or step {nearest}"
        )
    content = Files(
        {
            f"ema/{CONFIG}": read_text(found[until] / CONFIG),
            f"ema/{WEIGHTS}": mixture(files, parts.tolist()),
            "schedule.json": read_text(found[until] / "schedule.json"),
        }
    )
    target = save_checkpoint(out, step, content, recipe | {"posthoc": {"sigma_rel": width}})
    return f"wrote {target}: sigma_rel {width:g}, from {len(files)} averages; its profile is {100 * off:.2g} % off"


def mixture(files: Sequence[Path], parts: Sequence[float]) -> dict[str, Tensor]:
    """The sum of ``parts[i]`` times the tensors of ``files[i]``, in float64, tensor by tensor; as float32.

    Raises UserError where a number is not finite.
    """
    with ExitStack() as stack:
        opened = {file: stack.enter_context(safe_open(file, "pt")) for file in files}
        mixed = {}
        for key in opened[files[0]].keys():  # noqa: SIM118 - it is no dict
            total = torch.zeros_like(opened[files[0]].get_tensor(key), dtype=torch.float64)
            for file, part in zip(files, parts, strict=True):
                tensor = opened[file].get_tensor(key)
                if not torch.isfinite(tensor).all():
                    half = ", or train with train.posthoc_dtype=float32" if tensor.dtype == torch.float16 else ""
                    raise UserError(f"{file}: {key!r} is not finite; choose an earlier --step{half}")
                total.add_(tensor, alpha=part)
            mixed[key] = total.float()
    return mixed


def _check(snapshots: Sequence[Path]) -> dict[str, Any]:
    """The recipe that the snapshots share. Raises UserError where a file is damaged, or one is of another run."""
    states = [read_state(path) for path in snapshots]
    for path, state in zip(snapshots, states, strict=True):
        verify(path, state)
        if state.recipe != states[0].recipe:
            raise UserError(f"{path}: of another run than {snapshots[0]}; remove one of them")
        if not find_averages(path):
            raise UserError(f"{path}: holds no averages; remove it")
    return dict(states[0].recipe)
