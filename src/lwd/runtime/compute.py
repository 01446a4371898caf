"""The settings of the machine side: where and how a stage runs."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from lwd.config import Config

TrackerName = Literal["tensorboard", "wandb", "trackio"]

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_WORDS = re.compile("".join(rf"(?:(\d{{1,9}}){unit})?" for unit in _UNITS))


def _to_seconds(value: Any) -> Any:
    """ "3h50m" as seconds; a number as it is."""
    if not isinstance(value, str):
        return value
    found = _WORDS.fullmatch(value)
    if not value or found is None:
        raise ValueError(f"{value!r} is no time; write seconds, or 3h50m, 90m, 1d12h30s")
    return sum(int(number) * unit for number, unit in zip(found.groups("0"), _UNITS.values(), strict=True))


Duration = Annotated[float, BeforeValidator(_to_seconds, json_schema_input_type=float | str), Field(gt=0, le=1e9)]
"""Seconds; in a config also as "3h50m"."""


class ComputeConfig(Config):
    """Where and how a stage runs; nothing here changes what is computed beyond rounding."""

    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU where there is one."""
    precision: Literal["no", "bf16"] = "no"
    """bf16: matrix products under autocast; weights, their updates, norms and losses stay in float32."""
    tf32: bool = False
    """Let float32 matrix products on the GPU round their inputs to TF32."""
    compile: bool | Literal["auto"] = "auto"
    """torch.compile, block by block; auto: on a GPU."""
    activation_checkpointing: bool = False
    """Keep only the blocks' inputs for the backward pass: a third more work, a fraction of the memory."""
    shard: bool = False
    """Divide the denoiser's weights, gradients, moments and averages among the processes (FSDP2, block by block) of
    `lwd train` and `lwd probe`: for networks that do not fit on one GPU whole; slower than DDP, which is used without.
    The results are DDP's up to rounding, and so are the checkpoints' files. With one process nothing is divided."""
    micro_batch: PositiveInt | None = None
    """The most images that a process takes at once; larger shares of a batch are accumulated. None: all."""
    clip_norm: PositiveFloat | None = None
    """The largest gradient norm; None, the paper's: any."""
    spike: float | None = Field(default=20.0, gt=1)
    """A step whose gradient norm is so many times the usual is skipped; None: only where it is not finite."""
    skip_limit: PositiveInt = 5
    """After so many skipped steps in a row the run stops."""
    workers: NonNegativeInt = 0
    """Processes that read data; 0: a thread, which hands batches over without a copy."""
    log_every: PositiveInt = 50
    """Steps between two lines of trace.jsonl."""
    checkpoint_every: NonNegativeInt = 1000
    """0: only where a stage asks for one, and at the end."""
    keep_checkpoints: NonNegativeInt = 2
    """How many periodic checkpoints are kept; 0: all."""
    resume: bool | Literal["previous"] = True
    """Go on from the newest checkpoint; false: start afresh; previous: leave out, and remove, those at the end that are
    damaged."""
    preflight: bool = True
    """Before the first step of a new run, look at one batch and say what is wrong with it (docs/plan.md)."""
    time_limit: Duration | None = None
    """Save and leave with exit code 75 once the process is so old, in seconds or as 3h50m: before a scheduler's limit,
    by as much as a step and a checkpoint take, or a block, shard or PCA of the other stages (docs/watching.md)."""
    progress: bool = True
    """Show bars and say what is done."""
    trackers: tuple[TrackerName, ...] = ()
    """Where the log goes, beside trace.jsonl."""
