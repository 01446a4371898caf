"""The control: semantics that tell nothing of the texture beyond its class, with every other statistic as it was."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import torch
from torch import Tensor

from lwd.data.encoded import MANIFEST, read_manifest
from lwd.data.format import shard_files, shard_key
from lwd.files import discard, write_json
from lwd.groups import Layout
from lwd.runtime.checkpoint import load_tensors, save_tensors


def shuffle(source: Path, target: Path, layout: Layout, leader: str, seed: int) -> None:
    """Copy encoded data, the leader's latents dealt out anew among the images of a class, in every split, for good.

    An image and its mirrored twin get those of one other image and its twin. Finished work is found again.
    """
    manifest = read_manifest(source).model_dump(mode="json", exclude_unset=True)
    facts = f"{manifest['fingerprint']} {leader} shuffled by seed {seed}"
    if (target / MANIFEST).is_file() and (read_manifest(target).model_extra or {}).get("shuffled") == facts:
        return
    if target.exists():
        discard(target)
    shutil.copytree(source, target)
    (target / MANIFEST).unlink()  # written last: what has none is not finished
    for split in manifest["splits"]:
        _shuffle_split(target / split, shard_key(next(group for group in layout.groups if group.name == leader)), seed)
    manifest |= {"shuffled": facts, "fingerprint": hashlib.sha256(facts.encode()).hexdigest()[:12]}
    for split, entry in manifest["splits"].items():
        for shard in entry["shards"]:
            shard["sha256"] = hashlib.sha256((target / split / shard["file"]).read_bytes()).hexdigest()
    write_json(target / MANIFEST, manifest)


def _shuffle_split(folder: Path, key: str, seed: int) -> None:
    files = shard_files(folder)
    shards = [load_tensors(file) for file in files]
    order = within_classes(torch.cat([shard["labels"] for shard in shards]), seed)
    keys = [name for name in (key, f"{key}_flip") if name in shards[0]]
    dealt = {name: torch.cat([shard[name] for shard in shards])[order] for name in keys}
    start = 0
    for file, shard in zip(files, shards, strict=True):
        end = start + len(shard["labels"])
        save_tensors(file, shard | {name: latents[start:end].contiguous() for name, latents in dealt.items()})
        start = end


def within_classes(labels: Tensor, seed: int) -> Tensor:
    """A random order (N,) that leaves labels (N,) as they are: place i takes what lay at order[i] != i, of its class.

    The images of a class stand in a random circle, and each takes from the next (itself only where it is alone).
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.arange(len(labels))
    for label in labels.unique():
        mine = (labels == label).nonzero()[:, 0]
        circle = mine[torch.randperm(len(mine), generator=generator)]
        order[circle] = circle.roll(-1)
    return order
