"""A digest of everything that a demo leaves, so that a change of the code can be shown to change no result.

    lwd demo --config configs/digits.yaml output=runs/before      # the code before
    python benchmarks/digest/digest.py runs/before > before.json
    ...                                                           # the same with the code after, on the same machine
    python benchmarks/digest/digest.py runs/after --against before.json

One line for every tensor of every .safetensors file, and for every .json, .npz and .npy file by its content, without
what says when and by which version it was made. Bits depend on the processor: compare runs of one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

VOLATILE = {"versions", "lwd", "sha256", "weights", "fingerprint", "content", "time", "seconds"}
"""Keys of JSON files that follow from the code's version, the clock, or other files' bytes."""


def digests(folder: Path) -> Iterator[tuple[str, str]]:
    """(what, hash) of every tensor, table and array below ``folder``."""
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder).as_posix()
        if file.suffix == ".safetensors":
            with safe_open(file, framework="np") as tensors:
                for key in sorted(tensors.keys()):
                    yield f"{name}: {key}", _of(tensors.get_tensor(key))
        elif file.suffix == ".npz":
            with np.load(file) as arrays:
                for key in sorted(arrays.files):
                    yield f"{name}: {key}", _of(arrays[key])
        elif file.suffix == ".json":
            yield name, _hash(json.dumps(_lasting(json.loads(file.read_text())), sort_keys=True).encode())


def _of(array: Any) -> str:
    return _hash(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _lasting(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _lasting(value) for key, value in data.items() if key not in VOLATILE}
    return [_lasting(value) for value in data] if isinstance(data, list) else data


def main() -> int:
    """Print the digest, or what differs; 1 where something does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", type=Path, help="a digest printed before")
    arguments = parser.parse_args()
    now = dict(digests(arguments.folder))
    if arguments.against is None:
        print(json.dumps(now, indent=1))
        return 0
    before = json.loads(arguments.against.read_text())
    changed = [what for what in before if what in now and now[what] != before[what]]
    for label, names in (
        ("changed", changed),
        ("gone", sorted(before.keys() - now.keys())),
        ("new", sorted(now.keys() - before.keys())),
    ):
        for name in names:
            print(f"{label}: {name}")
    print(f"{len(before.keys() & now.keys()) - len(changed)} of {len(before)} the same")
    return int(bool(changed))


if __name__ == "__main__":
    sys.exit(main())
