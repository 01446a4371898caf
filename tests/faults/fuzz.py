"""Damaged files, by the thousand: every reader takes one, or says in one line what is wrong with it.

    python tests/faults/fuzz.py --minutes 5          # prints what was tried, and each fault with its seed
    python tests/faults/fuzz.py --seed 1234          # one of them, with its traceback

Small real files of every format are changed at random: bytes anywhere, keys and values of JSON (also of the header of a
safetensors file), lines and words of YAML and CSV. A reader may accept the result or raise UserError (ImageError, of a
picture), in one line; anything else is a fault, and so are more than `SECONDS` or `BYTES`.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_files import Material, materials

from lwd.errors import UserError
from lwd.images.decode import ImageError

SECONDS, BYTES = 10, 2**31
LONGEST = 2000
"""Characters of a line that somebody is to read."""
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 10**9 + 1, 2**63, -(2**63), 10**400, 1e308, float("nan"), float("inf"),
    "", "x", "$", "\n", "\0", "\ud800", "../..", "/", "~", "~nobody/x", "1e5", "é" * 300, [], {}, [None], [[]],
    {"": None}, {"x": {"y": 1}}, [0] * 1000,
]  # fmt: skip
PIECES = [
    b"",
    b"\0",
    b"\n",
    b"\xff\xff\xff\xff",
    b"9" * 5000,
    b"[" * 3000,
    b"{",
    b"}",
    b'"',
    b": ",
    b"- ",
    b"&a ",
    b"*a ",
]
PIECES += [
    b"<<: *a\n",
    b"null",
    b"NaN",
    b"-1",
    b"1e400",
    b"'",
    b"\t",
    b"\r",
    b"\xef\xbb\xbf",
    b"!!python/name:os.system ",
    b"$",
]


@dataclass(frozen=True)
class Fault:
    """What a reader did that none may; ``seed`` repeats it."""

    seed: int
    name: str
    said: str
    trace: str


def bytes_changed(data: bytes, draw: random.Random) -> bytes:
    """A few bytes flipped, cut out, doubled, put in, or the end cut off."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 4, 16])):
        at, size = draw.randrange(len(changed) + 1), draw.choice([1, 1, 4, 32, 512])
        kind = draw.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = draw.randrange(256)
        elif kind == 2:
            del changed[at : at + size]
        elif kind == 3:
            changed[at:at] = changed[at : at + size]
        elif kind == 4:
            changed[at:at] = draw.choice(PIECES)
        else:
            del changed[at:]
    return bytes(changed)


def json_changed(data: Any, draw: random.Random) -> Any:
    """A value somewhere inside replaced, removed, renamed or wrapped."""
    data = copy.deepcopy(data)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(data)
    if not places or draw.random() < 0.03:
        return draw.choice(ODD)
    node, key = draw.choice(places)
    kind = draw.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[draw.choice(["", "x", "$", f"{key} ", "a/b", "\n"])] = node.pop(key)
    elif kind == 2:
        node[key] = [node[key]]
    elif kind == 3 and isinstance(node[key], int | float):
        node[key] = draw.choice([-node[key], node[key] * 10**6, node[key] + 1, str(node[key])])
    else:
        node[key] = copy.deepcopy(draw.choice(ODD))
    return data


def header_changed(data: bytes, draw: random.Random) -> bytes:
    """The JSON header of a safetensors file changed, the rest as it is."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.dumps(json_changed(json.loads(data[8 : 8 + size]), draw)).encode()
    claimed = len(header) if draw.random() < 0.8 else draw.choice([0, len(header) - 1, len(header) + 9, 2**40, 2**63])
    return struct.pack("<Q", claimed) + header + data[8 + size :]


def changed(material: Material, draw: random.Random) -> bytes:
    """What is written in the file's place."""
    data = material.path.read_bytes()
    if material.path.suffix == ".json" and draw.random() < 0.75:
        found = json_changed(json.loads(data), draw)
        return json.dumps(json_changed(found, draw) if draw.random() < 0.3 else found).encode()
    if material.path.suffix == ".safetensors" and draw.random() < 0.6:
        return header_changed(data, draw)
    return bytes_changed(data, draw)


@contextmanager
def bounded() -> Iterator[None]:
    """TimeoutError after `SECONDS`, MemoryError beyond `BYTES` more than there are now."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def judged(read: Callable[[], object]) -> tuple[str, str, str]:
    """What came of it: "taken", "refused" or "fault"; what was said; and of a fault the traceback."""
    try:
        with bounded():
            read()
        return "taken", "", ""
    except (UserError, ImageError) as error:
        said = str(error)
        if len(said.splitlines()) == 1 and len(said) <= LONGEST:
            return "refused", said, ""
        return "fault", f"{len(said.splitlines())} lines, {len(said)} characters: {said[:200]!r}", ""
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "fault", f"{type(error).__name__}: {error}"[:300], traceback.format_exc()


def attempt(found: list[Material], seed: int) -> tuple[str, str, Fault | None]:
    """Change one file, read it, put it back: the material's name, what came of it, and the fault if there is one."""
    draw = random.Random(seed)
    material = draw.choice(found)
    whole = material.path.read_bytes()
    material.path.write_bytes(changed(material, draw))
    try:
        verdict, said, trace = judged(material.read)
    finally:
        material.path.write_bytes(whole)
    return material.name, verdict, Fault(seed, material.name, said, trace) if verdict == "fault" else None


def fuzz(seeds: Iterator[int] | range, folder: Path, until: float = float("inf")) -> tuple[Counter[str], list[Fault]]:
    """Try all seeds, or as many as there is time for (`time.monotonic`); counts by material and verdict, and faults."""
    found = materials(folder)
    counts: Counter[str] = Counter()
    faults = []
    for seed in seeds:
        if time.monotonic() > until:
            break
        name, verdict, fault = attempt(found, seed)
        counts[f"{name} {verdict}"] += 1
        faults += [] if fault is None else [fault]
    return counts, faults


def main() -> int:
    """What the command does; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one alone")
    asked = parser.parse_args()
    seeds = range(asked.first, 10**9) if asked.seed is None else range(asked.seed, asked.seed + 1)
    folder = Path(tempfile.mkdtemp(prefix="lwd-fuzz-"))
    try:
        counts, faults = fuzz(seeds, folder, time.monotonic() + 60 * asked.minutes)
    finally:
        shutil.rmtree(folder)
    for name in sorted({key.rpartition(" ")[0] for key in counts}):
        print(f"{name:24s}" + "".join(f"{counts[f'{name} {v}']:8d} {v}" for v in ("taken", "refused", "fault")))  # noqa: T201
    for fault in faults if asked.seed is not None else {(f.name, f.said[:60]): f for f in faults}.values():
        print(f"seed {fault.seed}: {fault.name}: {fault.said}" + (f"\n{fault.trace}" if asked.seed is not None else ""))  # noqa: T201
    print(f"{counts.total()} inputs, {len(faults)} faults")  # noqa: T201
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
