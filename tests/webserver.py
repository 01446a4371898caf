"""A web server on this machine for tests, in a thread: it serves a folder, counts, and fails when it is told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


class Served:
    """``url`` of ``folder``; ``asked``: how often each name was; ``faults``: by name the next answers, a status, or -n
    where the connection breaks after n bytes of the content."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.asked: Counter[str] = Counter()
        self.faults: dict[str, list[int]] = {}

    def answer(self, name: str) -> tuple[int, bytes, int]:
        """(status, content, how much of it comes)."""
        self.asked[name] += 1
        if not (self.folder / name).is_file():
            return 404, b"", 0
        content, faults = (self.folder / name).read_bytes(), self.faults.get(name)
        fault = faults.pop(0) if faults else -len(content)
        return (fault, b"", 0) if fault > 0 else (200, content, -fault)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        served: ClassVar[Served]
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, content, sent = self.served.answer(self.path.lstrip("/"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:sent])
            self.close_connection = sent < len(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.served = Served(folder, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Handler.served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
