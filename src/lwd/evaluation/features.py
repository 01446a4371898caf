"""The features of a set of images under one network: in memory, and as a file that moves between machines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeInt
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lwd.errors import UserError
from lwd.files import atomic_path, parse_json
from lwd.metrics.moments import Gaussian, Moments
from lwd.records import Record, as_record
from lwd.runtime.checkpoint import save_tensors

FORMAT = "lwd.features/1"


class Source(Record):
    """Of which images, or from which file, the features are."""

    path: str
    count: NonNegativeInt | None
    sha256: str


class Facts(Record):
    """What a file says of its features; ``content``: a hash of all its tensors."""

    what: ClassVar[str] = "features saved by `lwd evaluate`"
    remedy: ClassVar[str] = "save them again"

    extractor: dict[str, Any]
    source: Source
    content: str


@dataclass(frozen=True)
class FeatureSet:
    """``features``: name -> (N, D) float32; ``gaussians`` of names whose statistics are known without."""

    extractor: Mapping[str, Any]
    """`Extractor.identity` of the network."""
    source: Mapping[str, Any]
    """``path``, ``count`` and ``sha256`` of the images, and what else is known of them."""
    features: Mapping[str, Tensor]
    gaussians: Mapping[str, Gaussian] = field(default_factory=dict)
    """Computed from the images in ``source``."""
    labels: Tensor | None = None
    stored: Mapping[str, Gaussian] = field(default_factory=dict)
    """Statistics that came with the images, of whatever their maker knew: these take precedence."""

    @property
    def name(self) -> str:
        """The path it was made from."""
        return str(self.source["path"])

    def gaussian(self, name: str, device: torch.device) -> Gaussian | None:
        """The statistics of one kind of features, stored or computed; None where neither is possible."""
        if name in self.stored:
            return self.stored[name]
        if name in self.gaussians:
            return self.gaussians[name]
        if name not in self.features:
            return None
        moments = self._moments(name, device)
        return moments.mean, moments.covariance()

    def origin(self, name: str) -> str:
        """Where `gaussian` takes the statistics from: "computed", or "stored" with a hash of their values."""
        if name not in self.stored:
            return "computed"
        return f"stored {_hash(dict(zip(('mean', 'covariance'), self.stored[name], strict=True)))}"

    def with_stored(self, gaussians: Mapping[str, Gaussian]) -> FeatureSet:
        """The same with statistics that came with the images."""
        return replace(self, stored=dict(gaussians))

    def save(self, path: str | Path, device: torch.device, features: bool) -> None:
        """Write one safetensors file, atomically: with the features, else with their count, mean and scatter.

        Stored statistics go along, and with ``features=False`` stand for those that could be computed.
        """
        tensors: dict[str, Tensor] = {}
        for name, (mean, covariance) in self.stored.items():
            tensors |= {f"stored.{name}.mean": mean.contiguous(), f"stored.{name}.covariance": covariance.contiguous()}
        for name, values in self.features.items():
            if features:
                tensors[f"features.{name}"] = values.contiguous()
            elif name not in self.stored:
                state = self._moments(name, device).state()
                tensors |= {f"statistics.{name}.{key}": value.cpu() for key, value in state.items()}
        if self.labels is not None:
            tensors["labels"] = self.labels.contiguous()
        facts = {"extractor": dict(self.extractor), "source": dict(self.source), "content": _hash(tensors)}
        with atomic_path(Path(path)) as temporary:
            save_tensors(temporary, tensors, {"format": FORMAT, "facts": json.dumps(facts, sort_keys=True)})

    @staticmethod
    def is_saved(path: str | Path) -> bool:
        """Whether a file is one that `save` wrote, in any version."""
        try:
            with safe_open(path, framework="pt") as file:
                return str((file.metadata() or {}).get("format")).startswith(FORMAT.partition("/")[0])
        except (SafetensorError, OSError):
            return False

    @classmethod
    def load(cls, path: str | Path) -> FeatureSet:
        """Raises UserError for a file that is missing, damaged or something else."""
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file")
        try:
            with safe_open(path, framework="pt") as file:
                notes = file.metadata() or {}
                if notes.get("format") != FORMAT:
                    raise UserError(f"{path}: not features saved by `lwd evaluate` (expected format {FORMAT!r})")
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: damaged ({' '.join(str(error).split())})") from error
        facts = as_record(parse_json(notes.get("facts", ""), str(path)), Facts, str(path))
        if facts.content != _hash(tensors):
            raise UserError(f"{path}: damaged (its values are not those that were written)")
        try:
            stored, gaussians = _statistics(tensors)
        except (KeyError, RuntimeError) as error:  # a part that is not there, or of another shape
            raise UserError(f"{path}: its statistics are not whole ({error}); save them again") from error
        features = {
            key.removeprefix("features."): value for key, value in tensors.items() if key.startswith("features.")
        }
        source = facts.source.model_dump(exclude_unset=True)
        return cls(facts.extractor, source, features, gaussians, tensors.get("labels"), stored)

    def _moments(self, name: str, device: torch.device) -> Moments:
        values = self.features[name]
        moments = Moments(values.shape[1], device)
        for rows in torch.split(values, 2048):
            moments.add(rows.to(device))
        return moments


def _statistics(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Gaussian], dict[str, Gaussian]]:
    """The stored and the computed statistics in a file's tensors, by name."""
    stored, gaussians = {}, {}
    for key in tensors:
        kind, _, rest = key.partition(".")
        name = rest.removesuffix(".mean")
        if kind == "stored" and name != rest:
            stored[name] = (tensors[key], tensors[f"stored.{name}.covariance"])
        if kind == "statistics" and name != rest:
            state = {part: tensors[f"statistics.{name}.{part}"] for part in ("count", "mean", "scatter")}
            moments = Moments.from_state(state)
            gaussians[name] = (moments.mean, moments.covariance())
    return stored, gaussians


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
