"""`lwd export`: what sampling needs of a training checkpoint, as one folder with a model card, ready for the Hub."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from huggingface_hub import HfApi, ModelCardData
from safetensors import safe_open

from lwd.errors import UserError
from lwd.files import atomic_path, check_new_place
from lwd.models.pretrained import load_lightningdit, require_schedule
from lwd.models.record import read_record
from lwd.models.sizes import name_of
from lwd.runtime.checkpoint import State, read_state, verify
from lwd.runtime.hub import CONFIG, WEIGHTS, unreachable
from lwd.schedules import Schedule

CARD = """---
{metadata}
---

# {name}, {step:,} steps

{kind} for composite latents, trained under {schedule} with
[lwd](https://arxiv.org/abs/2606.19662) (Learning When to Denoise). These are the averaged (EMA) weights.

| | |
|---|---|
| groups (channels) | {groups} |
| latent grid | {grid} |
| classes | {classes} |
| parameters | {parameters:.1f} M |
| schedule | hash `{hash}`, in schedule.json{origin} |
| data | {data} |
| versions | {versions} |

```python
{example}
```

`lwd sample sample.checkpoint=FOLDER{name_it}` does the same and decodes.
"""

LIGHTNINGDIT = """from lwd.models import LightningDiT
from lwd.sample import generate
from lwd.schedules import Schedule

model, schedule = LightningDiT.from_pretrained("FOLDER").eval(), Schedule.load("FOLDER/schedule.json")
samples = generate(model, schedule, model.layout, labels, seeds, model.shape)"""

OWN = """from pathlib import Path

from lwd.models import record_of
from lwd.models.pretrained import load_checkpoint_model
from lwd.sample import generate

model, schedule = load_checkpoint_model(Path("FOLDER"), network="{network}")  # code that you have, and trust
record = record_of(model)
samples = generate(model, schedule, record.layout, labels, seeds, record.sample_shape)"""


def export(checkpoint: Path, target: Path) -> str:
    """Write config.json, model.safetensors (the average), schedule.json and README.md; returns a line about them.

    Raises UserError for what is not a training checkpoint, and where ``target`` exists.
    """
    check_new_place(target)
    require_schedule(checkpoint)
    if (checkpoint / WEIGHTS).is_file():
        raise UserError(f"{checkpoint}: a model folder already, as `lwd export` writes; copy it, or upload it as it is")
    state = read_state(checkpoint)
    verify(checkpoint, state)
    if not (checkpoint / "ema" / WEIGHTS).is_file():
        raise UserError(f"{checkpoint}: not a checkpoint of lwd train, which holds ema/{WEIGHTS}")
    schedule = Schedule.load(checkpoint / "schedule.json")
    with atomic_path(target) as temporary:
        temporary.mkdir()
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(checkpoint / "ema" / name, temporary / name)
        schedule.save(temporary / "schedule.json")
        (temporary / "README.md").write_text(_card(checkpoint, state, schedule), encoding="utf-8")
    return f"wrote {target}: the average after {state.step} steps, its schedule and a model card"


def push(folder: Path, repo: str) -> str:
    """Upload an exported folder to the Hub; returns a line with its address. Raises UserError where that fails."""
    api, written = HfApi(), f"{folder} is written and can be uploaded later"
    if line := unreachable():
        raise UserError(f"{repo}: not pushed ({line}); {written}")
    try:
        api.create_repo(repo, exist_ok=True)
        return f"pushed to {api.upload_folder(repo_id=repo, folder_path=folder).commit_url}"
    except Exception as error:  # those of the Hub, of the system, and of requests or httpx by the Hub library's version
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{repo}: not pushed ({line}); {written}") from error


def _card(checkpoint: Path, state: State, schedule: Schedule) -> str:
    folder = checkpoint / "ema"
    record, own = read_record(folder), read_record(folder).network
    metadata = ModelCardData(library_name="lwd", tags=["lwd", "latent-diffusion", "flow-matching"])
    weight = schedule.provenance.get("lambda")
    learned = "a fixed schedule" if weight is None else f"a schedule learned at lambda {weight:g}"
    return CARD.format(
        metadata=metadata.to_yaml(),
        kind="A network" if own else "A diffusion transformer",
        name=own or name_of(load_lightningdit(folder)),
        step=state.step,
        schedule=learned,
        groups=", ".join(f"{group.name} ({group.channels})" for group in record.layout.groups),
        grid=" x ".join(map(str, record.shape)) or "none",
        classes=record.num_classes if own else f"{record.num_classes}, and {record.num_classes} for none",
        parameters=_count(folder / WEIGHTS) / 1e6,
        example=OWN.format(network=own) if own else LIGHTNINGDIT,
        name_it=f" model.name={own}" if own else "",
        hash=schedule.hash(),
        origin=f": {schedule.origin}" if schedule.origin else "",
        data=state.recipe.get("data") or "no fingerprint",
        versions=", ".join(f"{name} {version}" for name, version in state.versions.items()),
    )


def _count(weights: Path) -> int:
    """How many numbers a safetensors file holds."""
    with safe_open(weights, "np") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
