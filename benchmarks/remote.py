"""How fast are batches from shards behind HTTP, beside the same shards on disk, and how much memory do they take?

    OMP_NUM_THREADS=1 python benchmarks/remote.py

SFD's geometry as in benchmarks/loader.py (885 kB an image, twins and features included), in smaller shards. The web
server is a process on this machine, so that the two share its cores: what is measured is the cost of the way, not a
network. Every row is a process of its own, rows take turns, and all of them read the same epochs in windows of two
shards: `disk` maps the files, `cold` begins with an empty cache with room for five shards, `warm` has room for all and
has read them once. Samples/s are medians, of the time that reading takes, without the first batch, which waits for a
window of shards; memory is the peak of a process over what it had before it opened the data, mapped pages
included. The rows' batches must be the same, bit by bit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import common
import loader
import psutil

from lwd.data import LatentShards, StepBatches
from lwd.data.remote import Mirror, RemoteFolder
from lwd.data.remote.listing import write_listing

BATCH, WINDOW, ROOM = 64, 2, 5
SERVER = """
import functools, http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=sys.argv[1]))
print(server.server_port, flush=True)
server.serve_forever()
"""


def read(url: str | None, folder: Path, cache: Path, limit: int, step_ms: float) -> dict[str, float]:
    """One epoch, in this process: seconds of the first batch, samples/s of the others, peaks in MB, a checksum."""
    process = psutil.Process()
    before = process.memory_info().rss
    if url is None:
        shards = LatentShards(folder / "train", loader.LAYOUT)
    else:
        found = Mirror(RemoteFolder(url), cache, limit)
        shards = LatentShards(found.path / "train", loader.LAYOUT, source=found.split("train"))
    batches, seconds, first, digest, peak, held = StepBatches(shards, BATCH, 0, window=WINDOW), 0.0, 0.0, 0, 0, 0
    steps = len(shards) // BATCH
    for step in range(steps):
        start = time.perf_counter()
        batch = batches[step].batch
        seconds += time.perf_counter() - start
        if step == 0:
            first, seconds = seconds, 0.0
        if step % 8 == 0:
            digest = zlib.crc32(batch.x1.numpy(), digest)
        time.sleep(step_ms / 1000)
        peak = max(peak, process.memory_info().rss)
        files = list((cache / "shards").glob("*")) if url is not None else []
        held = max(held, sum(file.stat().st_size for file in files if file.is_file()))
    rate = (steps - 1) * BATCH / seconds
    return {
        "first": first,
        "samples/s": rate,
        "memory_mb": (peak - before) / 1e6,
        "cache_mb": held / 1e6,
        "digest": digest,
    }


def measure(name: str, url: str | None, folder: Path, cache: Path, limit: int, step_ms: float) -> dict[str, float]:
    """`read` in a process of its own."""
    command = [sys.executable, __file__, "--row", json.dumps([url, str(folder), str(cache), limit, step_ms])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The URL of ``folder``."""
    command = [sys.executable, "-c", SERVER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--images", type=int, default=64, help="of a shard")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step-ms", type=float, default=0, help="how long a training step takes, in which shards come")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        url, folder, cache, limit, step_ms = json.loads(arguments.row)
        print(json.dumps(read(url, Path(folder), Path(cache), limit, step_ms)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name) / "data", ("disk", "cold", "warm")
        loader.SHARD_IMAGES = arguments.images
        (folder / "train").mkdir(parents=True)
        loader.write_data(folder / "train", arguments.shards * arguments.images)
        write_listing(folder)
        size = max(file.stat().st_size for file in (folder / "train").glob("*.safetensors"))
        found: dict[str, list[dict[str, float]]] = {row: [] for row in rows}
        with server(folder) as url:
            warm = url, folder, Path(name) / "warm", size * arguments.shards, 0.0
            measure("warm", *warm)
            for _ in range(arguments.rounds):
                found["disk"].append(measure("disk", None, folder, Path(name), 0, arguments.step_ms))
                cold = Path(name) / "cold"
                found["cold"].append(measure("cold", url, folder, cold, ROOM * size, arguments.step_ms))
                shutil.rmtree(cold)
                found["warm"].append(measure("warm", *warm[:-1], arguments.step_ms))
    digests = {one["digest"] for each in found.values() for one in each}
    assert len(digests) == 1, "the rows' batches differ"
    print(f"{common.machine()}\n{arguments.shards} shards of {size / 1e6:.0f} MB, room for {ROOM} in the cold cache "
          f"({ROOM * size / 1e6:.0f} MB); steps of {arguments.step_ms:g} ms; batches bit-identical\n")  # fmt: skip
    print(f"{'':6}{'first batch':>12}{'samples/s':>11}{'of disk':>9}{'memory':>10}{'cache':>10}")
    reference = statistics.median(one["samples/s"] for one in found["disk"])
    for row, each in found.items():
        keys = ("first", "samples/s", "memory_mb", "cache_mb")
        first, rate, memory, held = (statistics.median(one[key] for one in each) for key in keys)
        print(f"{row:6}{first:10.2f} s{rate:11.0f}{rate / reference:9.2f}{memory:7.0f} MB{held:7.0f} MB")
        common.record(f"remote: {row}", samples_per_s=rate, first_s=first, memory_mb=memory, cache_mb=held)


if __name__ == "__main__":
    main()
