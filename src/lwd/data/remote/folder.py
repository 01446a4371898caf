"""A folder at a URL, through fsspec: bounded reads, checked downloads, uploads, and what becomes of errors."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar, cast

import fsspec
from pydantic import AfterValidator

from lwd.errors import UserError
from lwd.records import Record
from lwd.scalars import as_url

T = TypeVar("T")

_CHUNK_BYTES = 2**24
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Between tries."""
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*(?=://.)")
_HTTP = ("http://", "https://")
_FOR_NOW = (408, 425, 429)
"""Answers of HTTP in the four hundreds after which it is worth to ask again."""
_HIDDEN = re.compile(r"//[^/@]*@|\?.*")
"""What may hold a password or a signature."""
_CHANGED = "; it was changed after it was listed: list the data again (`lwd data index`) and copy it there"


def _has_protocol(url: str) -> str:
    meant = url if _PROTOCOL.match(url) else as_url(url)  # such as s3:/bucket, which `Path` makes of one, or S3://
    if meant is None:
        raise ValueError(f"{url!r} is no URL")
    return meant.rstrip("/")


Url = Annotated[str, AfterValidator(_has_protocol)]
"""A setting: where a folder is, as ``s3://bucket/data``."""


class Entry(Record):
    """What a file must be: so many bytes, with this SHA-256."""

    what = "the facts about a file"
    remedy = "make it again by `lwd data index`"

    bytes: int
    sha256: str


@dataclass(frozen=True)
class RemoteFolder:
    """The folder at ``url``. Errors that may pass are tried again after ``sleep``; the others are UserErrors."""

    url: str
    sleep: Callable[[float], None] = time.sleep

    @property
    def shown(self) -> str:
        """The URL without what may be secret in it."""
        return _HIDDEN.sub(lambda found: "//" if found[0][0] == "/" else "", self.url)

    def read(self, name: str, limit: int) -> bytes | None:
        """The content of a small file, None where there is none. Raises UserError where it is over ``limit`` bytes."""

        def attempt() -> bytes | None:
            try:
                with self._open(name) as source:
                    content = _upto(source, limit + 1)
            except FileNotFoundError:
                return None
            if len(content) > limit:
                raise UserError(f"{self.shown}/{name}: over {limit} bytes, which no such file is")
            return content

        return self._tried(name, attempt)

    def download(self, name: str, entry: Entry, target: str | Path) -> None:
        """Write a file's content to ``target``, in place; raises UserError where it is not what ``entry`` says."""
        where = f"{self.shown}/{name}"

        def attempt() -> None:
            digest, size = hashlib.sha256(), 0
            with self._open(name) as source, Path(target).open("r+b") as file:
                while chunk := source.read(min(_CHUNK_BYTES, entry.bytes + 1 - size)):
                    stop_at_the_end(where)
                    size += len(chunk)
                    if size > entry.bytes:
                        raise UserError(f"{where}: longer than the {entry.bytes} bytes that are listed{_CHANGED}")
                    digest.update(chunk)
                    file.write(chunk)
            if size < entry.bytes:
                raise ConnectionError(f"ended after {size} of {entry.bytes} bytes")
            if digest.hexdigest() != entry.sha256:
                raise UserError(f"{where}: its checksum is not the one that is listed{_CHANGED}")

        Path(target).touch()
        self._tried(name, attempt)

    def upload(self, file: str | Path, name: str) -> None:
        """Copy a local file there, under ``name``. Raises UserError for a link, and where nothing can be written to the
        protocol."""
        if Path(file).is_symlink():
            raise UserError(f"{file}: is a link, which is not copied; put the file itself there")
        self._change(name, lambda system, path: system.put_file(str(file), path))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file there. Raises UserError as `upload` does."""
        self._change(name, lambda system, path: system.pipe_file(path, content))

    def _change(self, name: str, change: Callable[[Any, str], object]) -> None:
        if self.url.startswith(_HTTP):
            raise UserError(f"{self.shown}: can be read over HTTP, not written to; take s3://, gs:// or file://")
        self._tried(name, lambda: change(*self._at(name)))

    def _at(self, name: str) -> tuple[Any, str]:
        """The file system (fsspec keeps one a process and thread, so that a fork gets its own) and the path in it."""
        local = self.url.startswith(("file://", "local://"))
        system, root = fsspec.url_to_fs(self.url, **({"auto_mkdir": True} if local else {}))
        return system, f"{root}/{name}"

    def _open(self, name: str) -> IO[bytes]:
        system, path = self._at(name)
        # Of HTTP as one stream, which every server has, with a size, without which fsspec asks for it first and takes
        # any trouble for a missing file; of others a request for each chunk, without reading ahead.
        over_http = self.url.startswith(_HTTP)
        options = {"block_size": 0, "size": 1} if over_http else {"block_size": _CHUNK_BYTES, "cache_type": "none"}
        return cast(IO[bytes], system.open(path, "rb", **options))

    def _tried(self, name: str, attempt: Callable[[], T]) -> T:
        where = f"{self.shown}/{name}"
        for pause in (*_PAUSES_S, None):
            try:
                return attempt()
            except UserError:
                raise
            except Exception as error:
                _raise_if_final(where, error)
                if pause is None:
                    tries = f"{len(_PAUSES_S) + 1} tries failed ({_said(error)})"
                    raise UserError(f"{where}: {tries}; start again later") from error
            self.sleep(pause)
        raise AssertionError("the last try returns or raises")


def stop_at_the_end(where: str) -> None:
    """Raise UserError once the program ends, which waits for its threads and for what they still have to do."""
    if not threading.main_thread().is_alive():
        raise UserError(f"{where}: left, since the program ends")


def _upto(source: IO[bytes], left: int) -> bytes:
    """At most so many bytes; a stream gives them bit by bit."""
    parts = []
    while left and (part := source.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _raise_if_final(where: str, error: Exception) -> None:
    """Raise UserError for what no second try would mend."""
    status = getattr(error, "status", None)
    status = status if isinstance(status, int) else None
    if isinstance(error, FileNotFoundError):
        raise UserError(f"{where}: not there (or not to be seen with these credentials)") from error
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        raise UserError(f"{where}: is no file, or not in a folder ({_said(error)}); look what lies there") from error
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        raise UserError(
            f"{where}: no access ({_said(error)}); give credentials the way the protocol's own tools take them"
        ) from error
    if isinstance(error, ImportError):
        raise UserError(f"{where}: {_said(error)}; pip install 'lwd[remote]', or the package that it names") from error
    if isinstance(error, ValueError) or (status is not None and 400 <= status < 500 and status not in _FOR_NOW):
        raise UserError(f"{where}: cannot be used ({_said(error)})") from error


def _said(error: Exception) -> str:
    """The first line of what an error says, without what may be secret in it."""
    lines = _HIDDEN.sub(lambda found: "//" if found[0][0] == "/" else "", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
