"""The ImageNet recipes resolve to the paper's values, and docs/imagenet.md's commands and computed numbers are true."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.config import load
from lwd.data import write_shard
from lwd.errors import UserError
from lwd.groups import Layout
from lwd.models import LightningDiT, forward_flops, training_flops
from lwd.models.sizes import parse_name
from lwd.stages.experiment import Experiment
from lwd.stages.probe import SweepSettings
from lwd.training.optim import adamw

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "experiments" / "imagenet256"))
from doc_commands import Command, commands  # noqa: E402 - of the dry run, which runs what is checked here

FOLDER = ROOT / "configs" / "imagenet256"
PAGE = (ROOT / "docs" / "imagenet.md").read_text()
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def recipe(name: str) -> Experiment:
    return load(Experiment, FOLDER / f"{name}.yaml")


def value(config: Experiment, key: str) -> Any:
    """The setting behind a dotted key, as plain data."""
    data: Any = config.model_dump(mode="json")
    for part in key.split("."):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_loads(path: Path) -> None:
    load(Experiment, path)


PAPER = {  # method.md, Section 4; Tables 4 and 5, copied by hand
    "groups.0.name": "tex",  # Table 5: texture 32x16x16, semantics 16x16x16
    "groups.0.channels": 32,
    "groups.1.name": "sem",
    "groups.1.channels": 16,
    "groups.0.weight": 1,  # Table 4: w_tex, w_sem
    "groups.1.weight": 2,
    "leader": "sem",  # Eq. 17
    "model.num_classes": 1000,
    "model.repa_block": 2,
    "compute.precision": "bf16",
    "data.flip": True,
    "encode.size": 256,
    "encode.texture.encoder": "sd-vae-f16d32",
    "probe.degree": 4,  # Table 4
    "probe.steps": 10_000,
    "probe.burn_in": 5_000,
    "probe.batch": 256,
    "probe.lr": 1e-4,
    "probe.rho_lr": 1e-2,
    "probe.jacobian": "stop",
    "probe.reduction": "mean_flat",  # Appendix B
    "train.batch": 256,  # Table 5
    "train.lr": 1e-4,
    "train.weight_decay": 0,
    "train.ema_decay": 0.9999,
    "train.repa_weight": 1,
    "train.cosine_weight": 1,
    "train.reduction": "mean_flat",
    "train.label_dropout": 0.1,
    "sample.num": 50_000,
    "sample.labels": "balanced",
    "sample.solver": "dopri5",
    "sample.atol": 1e-6,
    "sample.rtol": 1e-3,
}
MAIN = {"model.name": "LightningDiT-XL/1", "probe.kinetic_weight": 0.04, "train.corrected": True}
MAIN |= {"train.time_distribution": "uniform", "train.schedule.kind": "learned"}
MAIN |= {"encode.semantic.encoder": "dinov2-b", "encode.semantic.compress": "semvae", "encode.repa.encoder": "semantic"}
PCA = {"probe.kinetic_weight": 0.02, "encode.semantic.compress": "pca", "encode.semantic.semvae": None}
OWN: dict[str, dict[str, Any]] = {  # what sets each recipe apart from `MAIN`
    "base": {"train.steps": 400_000},
    "probe": {"train.steps": 400_000},
    "xl": {"train.steps": 400_000, "sample.guidance.kind": "auto", "sample.guidance.scale": 1.5},
    "xl-1m": {"train.steps": 1_000_000, "sample.guidance.kind": "auto", "sample.guidance.scale": 1.5},
    "xl-3m": {"train.steps": 3_000_000, "sample.guidance.kind": "auto", "sample.guidance.scale": 1.3},
    "weak": {"model.name": "LightningDiT-B/1", "train.steps": 70_000},
    "offset": {
        "train.steps": 400_000,
        "train.schedule.kind": "offset",
        "train.schedule.delta": 0.3,
        "train.corrected": False,
        "train.time_distribution": "logit_normal",
    },
    "synchronous": {"train.steps": 400_000, "train.schedule.kind": "synchronous"},
    "dino-pca": {"train.steps": 400_000, **PCA},
    "clip-pca": {
        "train.steps": 400_000,
        **PCA,
        "encode.semantic.encoder": "clip-l14",
        "encode.repa.encoder": "dinov2-b",
    },
}


def test_the_table_knows_every_recipe() -> None:
    assert sorted(OWN) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_the_values_are_the_papers(name: str) -> None:
    config = recipe(name)
    wanted = PAPER | MAIN | OWN[name]
    assert {key: value(config, key) for key in wanted} == wanted


def test_the_sweep_and_the_networks_are_the_papers() -> None:
    assert SweepSettings().kinetic_weights == (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.10)
    sizes = {name: vars(parse_name(recipe(name).model.name)[0]) for name in ("xl", "weak")}
    assert [sizes["xl"][k] for k in ("depth", "width", "heads")] == [28, 1152, 16]
    assert [sizes["weak"][k] for k in ("depth", "width", "heads")] == [12, 768, 12]
    (group,) = adamw((torch.nn.Linear(1, 1), 1e-4)).param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.999), 0)


def test_budgets_are_stops_of_one_run() -> None:
    """Same folder and recipe, so that a longer one goes on from a shorter one; every stop of Table 1 is kept."""
    runs = [recipe(name) for name in ("xl", "xl-1m", "xl-3m")]
    assert len({(run.output, run.train.name) for run in runs}) == 1
    assert {70_000, 120_000, *(run.train.steps for run in runs)} <= set(runs[0].train.checkpoint_steps)
    for run in runs:
        assert run.sample.checkpoint == run.output / "train" / run.train.name / f"step-{run.train.steps:08d}"
        assert run.train.model_copy(update={"steps": 0}) == runs[0].train.model_copy(update={"steps": 0})
        assert (run.groups, run.seed, run.model, run.data) == (
            runs[0].groups,
            runs[0].seed,
            runs[0].model,
            runs[0].data,
        )
    assert len({run.sample.name for run in runs}) == 3


def test_main_and_weak_model_share_the_probes_schedule() -> None:
    probe, weak = recipe("probe"), recipe("weak")
    for main in map(recipe, ("xl", "xl-1m", "xl-3m")):
        assert main.train.schedule == weak.train.schedule
        assert main.train.schedule.path == probe.output / "probe" / "schedule.json"
        weak_folder = weak.output / "train" / weak.train.name / f"step-{weak.train.steps:08d}"
        assert main.sample.guidance.weak == weak_folder
        assert main.output == weak.output and main.train.name != weak.train.name


@pytest.mark.parametrize("name", ["offset", "synchronous"])
def test_baselines_are_on_the_same_latents_in_their_own_folders(name: str) -> None:
    main, baseline = recipe("xl"), recipe(name)
    assert baseline.data_path == main.data_path and baseline.encode == main.encode
    assert baseline.train.name == name
    folder = baseline.output / "train" / name
    assert baseline.sample.checkpoint == folder / f"step-{baseline.train.steps:08d}"


@pytest.mark.parametrize("name", ["dino-pca", "clip-pca"])
def test_variants_have_latents_and_a_schedule_of_their_own(name: str) -> None:
    main, variant = recipe("xl"), recipe(name)
    assert variant.output != main.output and variant.data_path == variant.output / "data"
    assert variant.train.schedule.path == variant.output / "probe" / "schedule.json"
    assert variant.layout == main.layout and variant.model == main.model


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_states_what_holds_anyway(name: str, tmp_path: Path) -> None:
    """Taking any one value out of a file changes what it resolves to: it repeats neither its base nor a default.

    But for the number of classes: that nothing sets it is itself held against the data.
    """
    whole, text = recipe(name), (FOLDER / f"{name}.yaml").read_text()
    keys = [key for key in leaves(yaml.safe_load(text)) if key not in (("base",), ("model", "num_classes"))]
    copy = tmp_path / "copy.yaml"
    for key in keys:
        data = yaml.safe_load(text)
        section = data
        for part in key[:-1]:
            section = section[part]
        del section[key[-1]]
        if "base" in data:
            data["base"] = str(FOLDER / data["base"])
        copy.write_text(yaml.safe_dump(data))
        try:
            assert load(Experiment, copy) != whole, key
        except UserError as error:  # needed at all, or by another value
            assert "ield required" in str(error) or "time_distribution is of corrected: false" in str(error), error


def leaves(data: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value that is not a section."""
    for key, item in data.items():
        if isinstance(item, dict):
            yield from leaves(item, (*above, key))
        else:
            yield (*above, key)


# docs/imagenet.md


EVALUATIONS = [command for command in commands(PAGE) if command.stage == "evaluate"]
OF_A_RECIPE = [command for command in commands(PAGE) if command.config and command not in EVALUATIONS]


@pytest.mark.parametrize("command", EVALUATIONS, ids=lambda command: command.line)
def test_the_pages_evaluations_resolve(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, [*command.words, "--dry-run"])
    assert result.exit_code == 0, result.output
    settings = yaml.safe_load(result.output)["evaluate"]
    assert settings["reference"] == "VIRTUAL_imagenet256_labeled.npz"
    folders = {recipe(name).output / "samples" for name in RECIPES} | {recipe("xl").output / "train" / "learned"}
    assert Path(settings["samples"]).parent in folders


@pytest.mark.parametrize("command", OF_A_RECIPE, ids=lambda command: command.line)
def test_the_pages_commands_resolve(command: Command) -> None:
    assert command.stage in ("encode", "semvae", "probe", "sweep", "train", "sample")
    config = load(Experiment, ROOT / str(command.config), command.overrides)
    if command.processes is None and command.stage == "train":
        assert command.dry
    if command.stage == "encode":
        assert (config.compute.precision, config.compute.tf32) == ("no", True)


def test_commands_are_read_from_bash_blocks_alone() -> None:
    text = """lwd train --config text.yaml
```bash
pip install lwd && cd lwd
torchrun --nproc-per-node 8 -m lwd train --config a.yaml \\
  'train.posthoc_ema=[0.05, 0.1]' --dry-run   # key=value
lwd data check runs/a
```
```python
lwd train --config python.yaml
```
"""
    first, second = commands(text)
    assert (first.stage, first.config, first.processes, first.dry) == ("train", Path("a.yaml"), 8, True)
    assert first.overrides == ["train.posthoc_ema=[0.05, 0.1]"]
    assert (second.stage, second.config, second.processes, second.dry) == ("data check", None, None, False)
    assert second.words == ("data", "check", "runs/a") and second.line == "lwd data check runs/a"


def test_the_page_lists_every_recipe() -> None:
    assert not [name for name in RECIPES if f"`{name}.yaml`" not in PAGE]


@pytest.mark.parametrize(
    ("twins", "features", "printed", "split"),
    [
        (True, True, "884 744", "1 134 GB"),
        (False, True, "442 376", "567 GB"),
        (True, False, "98 312", "126 GB"),
        (False, False, "49 160", "63 GB"),
    ],
)
def test_the_disk_it_takes(tmp_path: Path, twins: bool, features: bool, printed: str, split: str) -> None:
    """A shard of two images without its header, whose length is the file's first eight bytes."""
    layout, path = recipe("base").layout, tmp_path / "shard.safetensors"
    part = {group.name: torch.zeros(2, group.channels, 16, 16) for group in layout.groups}
    flipped = {name: latents.clone() for name, latents in part.items()} if twins else None
    feats = torch.zeros(2, 768, 16, 16) if features else None
    feats_flipped = feats.clone() if twins and feats is not None else None
    write_shard(path, layout, part, torch.zeros(2).long(), flipped, feats, feats_flipped)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    per_image = (path.stat().st_size - header) / 2
    assert per_image == int(printed.replace(" ", ""))
    assert round(per_image * 1_281_167 / 1e9) == int(split.removesuffix(" GB").replace(" ", ""))
    assert f"{printed} | {split} |" in PAGE


def test_the_work_and_memory_it_takes() -> None:
    def network(name: str) -> LightningDiT:
        config = recipe(name)
        with torch.device("meta"):
            return config.model.build(Layout(config.groups), (16, 16), 768)

    xl, weak, probe = network("xl"), network("weak"), recipe("probe").probe
    parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in (("xl", xl), ("weak", weak))}
    per_step = training_flops(xl, project=True) * 256
    rows = {
        "probe": training_flops(xl) * 256 * probe.steps,
        "sweep, seven probes": training_flops(xl) * 256 * probe.steps * 7,
        "weak model": training_flops(weak, project=True) * 256 * recipe("weak").train.steps,
        "XL, 400 000 steps": per_step * recipe("xl").train.steps,
        "XL, 1M steps": per_step * recipe("xl-1m").train.steps,
        "XL, 3M steps": per_step * recipe("xl-3m").train.steps,
        "50 000 samples, guided, per 100 evaluations": 50_000 * 100 * (forward_flops(xl) + forward_flops(weak)),
    }
    for row, operations in rows.items():
        hours = operations / 400e12 / 3600
        printed = f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"
        assert f"| {row} | {operations:.1e} | {printed} |".replace("e+", "e") in PAGE, (row, operations, printed)
    probe_share = training_flops(xl) / training_flops(xl, project=True)
    facts = [  # weights, gradient, EMA and two moments are five copies in float32; a checkpoint has no gradient
        f"{training_flops(xl, project=True) / 1e9:.0f} GFLOP per image with the REPA head, of the probe "
        f"{training_flops(xl) / 1e9:.0f}",
        f"near the {per_step * 4.6 / 2e12:.0f} that the paper's 4.6 steps/s",
        f"{20 * parameters['xl'] / 1e9:.1f} GB at XL, {20 * parameters['weak'] / 1e9:.1f} GB at B",
        f"{16 * parameters['xl'] / 1e9:.1f} GB at\nXL and {16 * parameters['weak'] / 1e9:.1f} GB at B (weights, EMA",
        *(
            f"| {printed} % | {100 * probe.steps / steps * probe_share:.2f} % |"
            for steps, printed in ((400_000, "2.5"), (1_000_000, "1.0"), (3_000_000, "0.33"))
        ),
    ]
    samples = recipe("xl").sample.num
    latents = 4 * sum(group.channels for group in recipe("xl").groups) * 16 * 16
    facts.append(f"50 000 samples are\n{samples * 256 * 256 * 3 / 1e9:.1f} GB as npz")
    facts.append(f"their latents are\n{samples * latents / 1e9:.1f} GB.")
    missing = [fact for fact in facts if fact not in PAGE]
    assert not missing
