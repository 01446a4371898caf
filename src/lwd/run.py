"""What every stage shares: the settings that describe a run, and the files that say how a result came about."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import PositiveFloat, PositiveInt, field_serializer, field_validator, model_validator

from lwd.config import SETTINGS, Config, Seed, dump
from lwd.data.encoded import fingerprint_of
from lwd.data.format import is_shard
from lwd.data.remote.folder import Url
from lwd.data.remote.listing import SHARDS
from lwd.data.remote.mirror import Mirror, mirror
from lwd.data.shards import FEATURES, LABELS, LatentShards, shard_key
from lwd.errors import UserError
from lwd.files import write_json, write_text
from lwd.groups import Group, Layout
from lwd.images.walk import files_in
from lwd.models import ModelConfig
from lwd.models.registry import import_own
from lwd.runtime.checkpoint import versions
from lwd.runtime.compute import ComputeConfig


class DataConfig(Config):
    """Where the latents are. ``path`` holds the folders ``train`` and ``heldout``; None: OUTPUT/data."""

    path: Url | Path | None = None
    """Where the latents are: a folder that holds ``train`` and ``heldout``, or the URL of one (s3://, gs://, https://,
    file://: docs/data.md); null: OUTPUT/data."""
    flip: bool = True
    """Mirror each image in training every second time, by chance."""
    window: PositiveInt | None = None
    """Among how many shards an epoch mixes images at a time, where not all of them are at hand; null: among all."""
    cache: Path | None = None
    """Where that which lies at a URL is kept; null: $LWD_CACHE, else the folder lwd of the user's cache."""
    cache_gb: PositiveFloat = 100.0
    """Bounds the shards in the cache: 10^9 bytes; the least recently used ones leave."""

    @property
    def mirror(self) -> Mirror | None:
        """What is here of data at a URL, whose small files are fetched; None of a folder."""
        return mirror(self.path, self.cache, int(self.cache_gb * 1e9)) if isinstance(self.path, str) else None

    def folder(self, output: Path) -> Path:
        """Where its small files are, for the run in ``output``."""
        found = self.mirror
        return found.path if found is not None else self.encoded(output)

    def encoded(self, output: Path) -> Path:
        """Where `lwd encode` works: ``path``, or OUTPUT/data where that is a URL."""
        return self.path if isinstance(self.path, Path) else output / "data"


class RunConfig(Config):
    """The sections that all stages read; each stage adds its own."""

    imports: tuple[str, ...] = ()
    """Modules that are imported first, from where Python looks or the current folder: they register curves and networks
    of your own."""
    output: Path = Path("runs/run")
    """The folder of the run, OUTPUT: every stage writes below it."""
    seed: Seed = 0
    """Of every random draw: the same seed gives the same run."""
    groups: tuple[Group, ...]
    """The groups of the latent, in the order of its channels."""
    leader: str
    """The group that sets the pace: t = tau in a learned schedule (Eq. 17), ahead of the others in an offset one."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("imports")
    @classmethod
    def _import_them(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            import_own(name, f"imports: {name!r}")
        return names

    @field_validator("groups")
    @classmethod
    def _groups_make_a_layout(cls, groups: tuple[Group, ...]) -> tuple[Group, ...]:
        Layout(groups)
        return groups

    @field_serializer("groups")
    def _groups_without_a_missing_shape(self, groups: tuple[Group, ...]) -> list[dict[str, Any]]:
        # Recipes written before there were shapes must compare equal to today's.
        return [{k: v for k, v in vars(g).items() if k != "shape" or v is not None} for g in groups]

    @model_validator(mode="after")
    def _leader_leads(self) -> Self:
        if self.leader not in self.layout.names:
            raise ValueError(f"leader: {self.leader!r} is not one of the groups {list(self.layout.names)}")
        keys = [shard_key(group) for group in self.groups]
        if len({*keys, LABELS, FEATURES}) < len(keys) + 2:
            raise ValueError(f"groups: shard keys {keys} must differ, also from {LABELS!r} and {FEATURES!r}")
        return self

    @property
    def layout(self) -> Layout:
        """The groups as a layout."""
        return Layout(self.groups)

    @property
    def data_path(self) -> Path:
        """The folder of the encoded data; of data at a URL that of its small files here, which are fetched."""
        return self.data.folder(self.output)

    @property
    def encoded_path(self) -> Path:
        """Where `lwd encode` works: data.path, or OUTPUT/data where that is a URL."""
        return self.data.encoded(self.output)

    @property
    def trained(self) -> Path:
        """The training run whose newest checkpoint later stages take, unless one is named."""
        return self.output / "train" / "learned"

    def shards(self, split: str, features: bool) -> LatentShards:
        """The latents of one split ("train", "heldout"), flips as configured."""
        found = self.data.mirror
        source = None if found is None else found.split(split)
        return LatentShards(self.data_path / split, self.layout, self.data.flip, features, self.seed, source)

    def has_shards(self, split: str) -> bool:
        """Whether there are any of one split."""
        folder = self.data_path / split
        return bool(files_in(folder, is_shard)) if self.data.mirror is None else (folder / SHARDS).is_file()

    def heldout_shards(self) -> Callable[[], LatentShards] | None:
        """A function that opens the held-out latents, without features; None where there are none."""
        there = (self.data_path / "heldout").is_dir()
        return partial(self.shards, "heldout", features=False) if there else None

    def data_fingerprint(self) -> str | None:
        """What the encode manifest says the data is, None where there is no manifest."""
        return fingerprint_of(self.data_path)

    def check_labels(self, shards: LatentShards) -> None:
        """Raise UserError unless every label is one of the model's classes; and where the number of classes was left at
        its default, unless the data has as many."""
        labels, classes = shards.labels(), self.model.num_classes
        found = int(labels.max()) + 1
        if found < classes and "num_classes" not in self.model.model_fields_set:
            raise UserError(
                f"{shards.path}: labels run from {int(labels.min())} to {found - 1}, model.num_classes is {classes} as "
                f"long as nothing sets it; set model.num_classes={max(found, 1)}, or {classes} if that is meant"
            )
        if bool(((labels < 0) | (labels >= classes)).any()):
            raise UserError(
                f"{shards.path}: labels run from {int(labels.min())} to {int(labels.max())}, "
                f"model.num_classes={classes} allows 0 to {classes - 1}"
            )

    def recipe(self, **more: Any) -> dict[str, Any]:
        """The settings that decide a result: groups, seed, data, model and ``more``; not where or how it runs."""
        return self.model_dump(mode="json", include={"groups", "leader", "seed", "model"}) | {
            "flip": self.data.flip,
            **({} if self.data.window is None else {"window": self.data.window}),
            "data": self.data_fingerprint(),
            **more,
        }


def write_run_files(config: RunConfig, folder: Path) -> None:
    """Beside a stage's result: its resolved config and the versions it ran under."""
    write_text(folder / SETTINGS, dump(config))
    write_json(folder / "versions.json", versions())
