"""`lwd export`: what sampling needs of a training checkpoint, as one folder with a model card, ready for the Hub."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import yaml
from huggingface_hub import HfApi, ModelCardData
from safetensors import safe_open

from lwd.config import SETTINGS, parse, read_yaml
from lwd.data.encoded import MANIFEST, fingerprint_of
from lwd.encoders.decoder import CARRIED, carry, check_data
from lwd.errors import UserError
from lwd.files import atomic_path, check_new_place, write_text
from lwd.models.pretrained import load_lightningdit, require_schedule
from lwd.models.record import read_record
from lwd.models.sizes import name_of
from lwd.run import DataConfig
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

{decoded}
"""

DECODED = """Images, from the command line:

```bash
lwd sample -c FOLDER{name_it} --num 16
```
"""

IN_DIFFUSERS = """
And as a diffusers pipeline:

```python
from lwd.pipeline import LwdPipeline

pipe = LwdPipeline.from_checkpoint("FOLDER")
images = pipe(class_labels=[0, 1], num_images_per_class=4).images
```
"""

LATENTS = """These are latents. The folder holds no decoder: where the encoded data lies, `lwd sample --config CONFIG
sample.checkpoint=FOLDER{name_it}` decodes, too."""

LIGHTNINGDIT = """import torch
from lwd.models import LightningDiT
from lwd.sample import generate
from lwd.schedules import Schedule

model, schedule = LightningDiT.from_pretrained("FOLDER").eval(), Schedule.load("FOLDER/schedule.json")
labels, seeds = torch.tensor([0, 1]), torch.tensor([0, 1])
samples = generate(model, schedule, model.layout, labels, seeds, model.shape)"""

OWN = """from pathlib import Path

import torch
from lwd.models import record_of
from lwd.models.pretrained import load_checkpoint_model
from lwd.sample import generate

model, schedule = load_checkpoint_model(Path("FOLDER"), network="{network}")  # code that you have, and trust
record, labels, seeds = record_of(model), torch.tensor([0, 1]), torch.tensor([0, 1])
samples = generate(model, schedule, record.layout, labels, seeds, record.sample_shape)"""


def export(checkpoint: Path, target: Path, data: str | Path | None = None) -> str:
    """Write config.json, model.safetensors (the average), schedule.json, README.md and, for `lwd sample -c FOLDER`,
    config.yaml and what decodes; returns a line about them.

    ``data``: the folder, or the URL, of what it was trained on, of which `carry` takes a part; None: where the run's
    config.yaml says that it is.
    Raises UserError for what is not a training checkpoint, for other data than it was trained on, and where ``target``
    exists.
    """
    check_new_place(target)
    require_schedule(checkpoint)
    if (checkpoint / WEIGHTS).is_file():
        raise UserError(f"{checkpoint}: a model folder already, as `lwd export` writes; copy it, or upload it as it is")
    state = read_state(checkpoint)
    verify(checkpoint, state)
    if not (checkpoint / "ema" / WEIGHTS).is_file():
        raise UserError(f"{checkpoint}: not a checkpoint of lwd train, which holds ema/{WEIGHTS}")
    schedule, record = Schedule.load(checkpoint / "schedule.json"), read_record(checkpoint / "ema")
    folder, missing = _given(checkpoint, data) if data is not None else _found(checkpoint, state)
    with atomic_path(target) as temporary:
        temporary.mkdir()
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(checkpoint / "ema" / name, temporary / name)
        schedule.save(temporary / "schedule.json")
        carried = None if folder is None else carry(folder, record.layout, temporary / CARRIED)
        config = {key: state.recipe[key] for key in ("groups", "leader")} | {
            "model": {"num_classes": record.num_classes}
        }
        write_text(temporary / SETTINGS, yaml.dump(config, sort_keys=False, default_flow_style=None))
        decodes = (temporary / CARRIED / MANIFEST).is_file()
        write_text(temporary / "README.md", _card(checkpoint, state, schedule, decodes))
    parts = f"the average after {state.step} steps, its schedule and a model card"
    return f"wrote {target}: {parts}; {carried or f'no decoder: {missing}'}"


def _given(checkpoint: Path, data: str | Path) -> tuple[Path, str]:
    """The folder of ``--data``."""
    folder = parse(DataConfig, {"path": str(data)}, "--data").folder(checkpoint)
    if not folder.is_dir():
        raise UserError(f"{data}: no such folder; --data is the folder that `lwd encode` wrote, or its URL")
    check_data(checkpoint, folder)
    return folder, ""


def _found(checkpoint: Path, state: State) -> tuple[Path | None, str]:
    """The folder of the data that a checkpoint was trained on; None where it is not where the run found it, and why."""
    file = checkpoint.parent / SETTINGS
    settings = read_yaml(file) if file.is_file() else {}
    section, output = settings.get("data", {}), settings.get("output")
    try:
        if not isinstance(section, dict):
            raise UserError(f"{file}: data is no section")
        data = parse(DataConfig, section, str(file)).folder(Path(output if isinstance(output, str) else checkpoint))
        if data.is_dir() and fingerprint_of(data) == state.recipe.get("data"):
            return data, ""
    except UserError as error:
        return None, f"its data cannot be read ({error}), name it by --data"
    return None, "its data was not found, name it by --data"


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


def _card(checkpoint: Path, state: State, schedule: Schedule, decodes: bool) -> str:
    folder = checkpoint / "ema"
    record, own = read_record(folder), read_record(folder).network
    metadata = ModelCardData(library_name="lwd", tags=["lwd", "latent-diffusion", "flow-matching"])
    weight = schedule.provenance.get("lambda")
    learned = "a fixed schedule" if weight is None else f"a schedule learned at lambda {weight:g}"
    decoded = (DECODED if own else DECODED + IN_DIFFUSERS) if decodes else LATENTS
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
        decoded=decoded.format(name_it=f" model.name={own}" if own else "").rstrip(),
        hash=schedule.hash(),
        origin=f": {schedule.origin}" if schedule.origin else "",
        data=state.recipe.get("data") or "no fingerprint",
        versions=", ".join(f"{name} {version}" for name, version in state.versions.items()),
    )


def _count(weights: Path) -> int:
    """How many numbers a safetensors file holds."""
    with safe_open(weights, "np") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
