"""Where the weights of `FidInception` come from, and whether a file holds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.files import checksum
from lwd.runtime.untrusted import load_foreign

PUBLISHED_NAME = "pt_inception-2015-12-05-6726825d.pth"
PUBLISHED_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{PUBLISHED_NAME}"
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def published_weights(download: bool = False, section: str = "evaluate") -> Path:
    """The published file in the cache of `torch.hub` (where pytorch-fid keeps it too), checked, fetched if asked to.

    ``section``: of the settings that a refusal names. Raises UserError where it is not there and was not asked for,
    cannot be fetched, or is another file.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED_NAME
    if not path.is_file():
        if not download:
            raise UserError(
                f"{path}: no Inception weights there; fetch {PUBLISHED_URL} (evaluate.download=true does), or name a "
                f"file that holds them with {section}.weights=FILE"
            )
        _fetch(path)
    if checksum(path) != PUBLISHED_SHA256:
        raise UserError(f"{path}: not the published Inception weights, or damaged; remove it and fetch {PUBLISHED_URL}")
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.pth`` state dict or a ``.safetensors`` file, by name.

    Raises UserError for a file that is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; the Inception weights are at {PUBLISHED_URL}")
    if path.suffix == ".safetensors":
        from lwd.runtime.checkpoint import load_tensors  # safetensors, which only this needs

        return load_tensors(path)
    if path.suffix == ".pb":
        raise UserError(f"{path}: TensorFlow's graph; convert it first: experiments/imagenet256/inception_graph.py")
    payload: Any = load_foreign(path)
    if not isinstance(payload, Mapping) or not all(isinstance(value, Tensor) for value in payload.values()):
        raise UserError(f"{path}: not a state dict of Inception; the published one is at {PUBLISHED_URL}")
    return {str(name): value for name, value in payload.items()}


def check_weights(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError unless ``state`` has the names and shapes ``expected``; batch counters may be absent."""
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    missing, unknown = sorted(needed - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unknown:
        raise UserError(
            f"{path}: not the FID Inception network: {len(missing)} tensors missing {missing[:1]}, "
            f"{len(unknown)} unknown {unknown[:1]}; the published weights are at {PUBLISHED_URL}"
        )
    for name in needed:
        tensor, shape = state[name], tuple(expected[name].shape)
        if tuple(tensor.shape) != shape:
            raise UserError(f"{path}: {name!r} has shape {tuple(tensor.shape)}, the FID Inception network has {shape}")
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path}: {name!r} holds values that are no finite real numbers")


def _fetch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(PUBLISHED_URL, str(path), hash_prefix=PUBLISHED_SHA256, progress=False)
    except (OSError, RuntimeError) as error:  # no network, HTTP errors; a wrong checksum
        line = " ".join(str(error).split())
        raise UserError(
            f"{PUBLISHED_URL}: cannot be fetched ({line}); put the file at {path}, or name yours"
        ) from error
