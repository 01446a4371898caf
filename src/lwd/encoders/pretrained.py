"""What pretrained encoders share: optional libraries, files from the Hub, and fingerprints of weights."""

from __future__ import annotations

import hashlib
import importlib
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from lwd.errors import UserError
from lwd.runtime.hub import unreachable

_CHUNK_BYTES = 2**24
_ERRORS = (
    *(OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ArithmeticError, ImportError),
    *(IndexError, SafetensorError, pickle.UnpicklingError),
)


def library(module: str, name: str) -> Any:
    """``module.name`` of an optional library, imported here and now; raises UserError where it is not installed."""
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(f"{module} cannot be imported ({error}): pip install 'lwd[encoders]'") from error


def hub_id(source: str | Path) -> str | None:
    """``source`` where it can be a repository of the Hub, owner/name; None where it is a path."""
    parts = str(source).split("/")
    path = Path(source).expanduser()
    return None if path.is_absolute() or parts[0] in ("", ".", "..") or len(parts) != 2 or not parts[1] else str(source)


def fetch(repo: str, candidates: Sequence[str], remedy: str) -> Path:
    """The first of the files ``candidates`` that the Hub's local cache has of ``repo``, or else that it can download.

    A cached copy is taken as it is, without asking the Hub for a newer one. Raises UserError, ending in ``remedy``
    (what to do instead), where there is none: offline and not in the cache, no such repository, no access.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    what = f"Hub repository {repo!r}: cannot get {' or '.join(candidates)}"
    reason: Exception | None = None
    for cached in (True, False):
        if not cached and (line := unreachable()):
            raise UserError(f"{what} ({line}); {remedy}")
        for name in candidates:
            try:
                return Path(hf_hub_download(repo, name, local_files_only=cached))
            except EntryNotFoundError as error:
                reason = error
            except (OSError, ValueError) as error:  # no such repository, no access, no connection, no valid Hub id
                raise UserError(f"{what} ({' '.join(str(error).split())}); {remedy}") from error
    raise UserError(f"{what} ({' '.join(str(reason).split())}); {remedy}") from reason


@contextmanager
def read_as(folder: Path, what: str) -> Iterator[None]:
    """Whatever transformers or diffusers raise inside becomes a UserError: ``folder`` cannot be read as ``what``."""
    from huggingface_hub import errors

    strict = getattr(errors, "StrictDataclassError", ValueError)  # a config's value of a wrong type; new in 0.34
    try:
        yield
    except (*_ERRORS, strict) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{folder}: cannot be read as {what} ({line})") from error


def fingerprint(module: nn.Module, dtype: torch.dtype | None = None) -> str:
    """sha256 of a module's weights as held, or as ``dtype`` would hold them: the sorted sha256 of each tensor's dtype,
    shape and values.

    Names are left out, since transformers renames parameters from version to version; another dtype has another
    fingerprint. Values are read 16 MiB at a time.
    """
    digests = []
    for held in module.state_dict().values():
        tensor = held if dtype is None or not held.is_floating_point() else held.to(dtype)
        digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for chunk in tensor.detach().contiguous().reshape(-1).view(torch.uint8).split(_CHUNK_BYTES):
            digest.update(chunk.cpu().numpy().data)
        digests.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
