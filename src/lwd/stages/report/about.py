"""What the page is about: data, settings and versions, as the files have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lwd.config import dump
from lwd.data.encoded import MANIFEST, Manifest, read_manifest
from lwd.plots.text import count, counted, listed, percent
from lwd.records import read_mapping
from lwd.run import RunConfig

Facts = list[tuple[str, str]]
"""(name, value) pairs."""


@dataclass(frozen=True)
class About:
    """``dataset``: its name, "" where nothing was encoded; ``config``: the resolved config as YAML."""

    dataset: str
    count: str
    groups: str
    leader: str
    settings: Facts
    data: Facts
    versions: Facts
    config: str


def about(config: RunConfig) -> About:
    """Read what there is; what there is not is left out."""
    manifest = read_manifest(config.data_path) if (config.data_path / MANIFEST).is_file() else None
    groups = [f"{g.name} ({g.channels} channel{'s' if g.channels > 1 else ''})" for g in config.layout.groups]
    return About(
        dataset="" if manifest is None else str(manifest.recipe.get("dataset", "")),
        count=counted(len(groups)),
        groups=listed(groups),
        leader=config.leader,
        settings=_settings(config),
        data=[] if manifest is None else _data(manifest),
        versions=_versions(config),
        config=dump(config),
    )


def _settings(config: RunConfig) -> Facts:
    """The settings that a reader asks for first; sections that the config does not have are skipped."""
    plain = config.model_dump(mode="json")
    facts = [
        ("network", config.model.name),
        ("groups", "; ".join(f"{g.name} {g.channels} channels, weight {g.weight:g}" for g in config.layout.groups)),
        ("leader", config.leader),
    ]
    if probe := plain.get("probe"):
        facts.append(("probe", f"{count(probe['steps'])} steps of {probe['batch']}, burn-in {count(probe['burn_in'])}"))
    if train := plain.get("train"):
        budgets = listed([count(steps) for steps in plain.get("compare", {}).get("budgets") or [train["steps"]]])
        facts.append(("training", f"{budgets} steps of {train['batch']}, learning rate {train['lr']:g}"))
    if sample := plain.get("sample"):
        solver = sample["solver"] if sample["solver"] == "dopri5" else f"{sample['solver']}, {sample['steps']} steps"
        facts.append(("sampling", f"{count(sample['num'])} images, {solver}"))
    if seeds := plain.get("compare", {}).get("seeds"):
        facts.append(("seeds", listed([str(seed) for seed in seeds])))
    return facts


def _data(manifest: Manifest) -> Facts:
    """Dataset, counts and what the encoders reach, from the manifest."""
    facts = [("dataset", manifest.dataset)] if manifest.dataset is not None else []
    facts += [(f"{name} images", count(split.images)) for name, split in manifest.splits.items() if split.images]
    parts = [("texture", manifest.texture), ("semantic", manifest.semantic), ("judge", manifest.judge)]
    parts[2:2] = [("further group", part) for part in manifest.further]
    for role, part in parts:
        if part is None:  # images on disk have no judge
            continue
        if part.group is not None:
            facts.append((f"{part.group} is", (part.kind or role).replace("_", " ")))
        if ratio := part.explained_variance_ratio:
            facts.append((f"{part.group or role} explains", f"{percent(sum(ratio))} of its features' variance"))
        if part.accuracy_heldout is not None:
            whose = "judge" if role == "judge" else f"{role} encoder"
            facts.append((f"{whose}, held-out accuracy", percent(part.accuracy_heldout)))
    return [*facts, ("fingerprint", manifest.fingerprint)]


def _versions(config: RunConfig) -> Facts:
    """Every version that some stage recorded; where stages differ, all of them."""
    found: dict[str, dict[str, None]] = {}
    for path in _version_files(config):
        for name, version in read_mapping(path, "a list of versions", "remove it").items():
            found.setdefault(name, {})[str(version)] = None
    return [(name, ", ".join(each)) for name, each in found.items()]


def _version_files(config: RunConfig) -> list[Path]:
    folders = [config.data_path, *(config.output / stage for stage in ("probe", "sweep"))]
    folders += [folder for stage in ("train", "samples") for folder in sorted((config.output / stage).glob("*"))]
    return [folder / "versions.json" for folder in folders if (folder / "versions.json").is_file()]
