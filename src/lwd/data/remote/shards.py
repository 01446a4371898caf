"""The shards of a split that lies elsewhere: fetched by threads ahead of their use, opened, and let go of in time."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lwd.data.format import Shard
from lwd.data.remote.cache import Cache
from lwd.data.remote.folder import RemoteFolder, stop_at_the_end
from lwd.data.remote.listing import ListedShard
from lwd.errors import UserError

_THREADS = 4
_GB = 1e9


class RemoteShards:
    """Shards by number, in the order of their names. Raises UserError where one is larger than the cache.

    At most the cache's limit of bytes is mapped at once, other than what one `get` asks for.
    """

    def __init__(self, remote: RemoteFolder, entries: Mapping[str, ListedShard], cache: Cache) -> None:
        self._remote, self._cache = remote, cache
        self._names = sorted(entries)
        self._entries = [entries[name] for name in self._names]
        self.files = [f"{remote.shown}/{name}" for name in self._names]
        """What they are called for people."""
        if (largest := max(entry.bytes for entry in self._entries)) > cache.limit:
            raise UserError(f"{remote.shown}: a shard of {largest / _GB:.3g} GB is over {self._room}; choose more")
        self._open = _Open()

    def __len__(self) -> int:
        return len(self._names)

    @property
    def _room(self) -> str:
        return f"data.cache_gb={self._cache.limit / _GB:g}"

    def heads(self) -> dict[str, Shard]:
        """By name for people, each shard with its labels and, in place of its other tensors, those without values."""
        return dict(zip(self.files, (entry.head() for entry in self._entries), strict=True))

    def check_room(self, window: int | None) -> None:
        """Raise UserError unless the cache holds what random access among ``window`` shards takes.

        That is twice as many, since the next ones are fetched meanwhile; all for None.
        """
        count = len(self) if window is None else 2 * window
        sizes = sorted((entry.bytes for entry in self._entries), reverse=True)
        if (needed := sum(sizes[:count])) <= self._cache.limit:
            return
        where = f"{self._remote.shown}: {needed / _GB:.3g} GB of shards"
        if window is None:
            raise UserError(
                f"{where}, all read at random, do not fit into {self._room}; choose more, or set data.window, among "
                "how many shards images are mixed"
            )
        raise UserError(f"{where} at a time do not fit into {self._room}; choose more, or a smaller data.window")

    def expect(self, shards: Iterable[int]) -> None:
        """Begin to fetch shards that will be asked for, in that order."""
        open_here = self._here()
        with open_here.lock:
            for number in shards:
                self._start(open_here, number)

    def get(self, shards: Iterable[int]) -> dict[int, Shard]:
        """At least the shards asked for, opened, by number; waits for those that are not here yet."""
        open_here, wanted = self._here(), set(shards)
        with open_here.lock:
            waiting = [self._start(open_here, number) for number in sorted(wanted)]
        try:
            for future in waiting:
                future.result()
        finally:
            with open_here.lock:
                self._let_go(open_here, wanted)
        with open_here.lock:
            futures = list(open_here.futures.items())
        return {number: future.result() for number, future in futures if future.done() and not future.exception()}

    def _start(self, open_here: _Open, number: int) -> Future[Shard]:
        if number not in open_here.futures:
            open_here.futures[number] = open_here.pool.submit(self._fetch, number)
        return open_here.futures[number]

    def _let_go(self, open_here: _Open, wanted: set[int]) -> None:
        """Forget what failed, so that it is tried anew, and the oldest of what is over the limit."""
        futures = open_here.futures
        for number in [number for number, future in futures.items() if future.done() and future.exception()]:
            del futures[number]
        for number in wanted & futures.keys():
            futures[number] = futures.pop(number)  # the newest
        total = sum(self._entries[number].bytes for number in futures)
        for number in list(futures):
            if total > self._cache.limit and number not in wanted and futures[number].done():
                total -= self._entries[number].bytes
                del futures[number]

    def _fetch(self, number: int) -> Shard:
        name, entry = self._names[number], self._entries[number]
        stop_at_the_end(self.files[number])
        shard = self._cache.shard(entry, lambda path: self._remote.download(name, entry, path), self.files[number])
        if not entry.matches(shard):
            raise UserError(f"{self.files[number]}: other tensors or labels than listed; list them by `lwd data index`")
        return shard

    def _here(self) -> _Open:
        """What is open in this process: after a fork the threads of the parent are not there."""
        if self._open.process != os.getpid():
            self._open = _Open()
        return self._open

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = _Open()


class _Open:
    """The shards of one process, on their way or mapped, from the one unused for longest to the newest."""

    def __init__(self) -> None:
        self.process, self.lock = os.getpid(), threading.Lock()
        self.pool = ThreadPoolExecutor(_THREADS, "fetch")
        self.futures: dict[int, Future[Shard]] = {}
        weakref.finalize(self, self.pool.shutdown, wait=False, cancel_futures=True)
