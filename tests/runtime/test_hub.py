"""Where the Hub cannot be reached that is said at once, once, and in one line."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from lwd.encoders.pretrained import fetch
from lwd.errors import UserError
from lwd.runtime.hub import unreachable


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A Hub on this machine that has nothing; gives what it was asked."""
    asked: list[str] = []

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Empty)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    at(monkeypatch, server.server_port, tmp_path)
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def at(monkeypatch: pytest.MonkeyPatch, port: int, cache: Path) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:{port}/" + "{repo_id}/{filename}"
    )


def test_nobody_there(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    at(monkeypatch, 9, tmp_path)  # a port of 1983 at which nobody listens

    def wait(seconds: float) -> None:
        raise AssertionError(f"waited {seconds} s to try again")

    monkeypatch.setattr(time, "sleep", wait)
    with pytest.raises(UserError) as error:
        fetch("owner/name", ["a.ckpt", "b.ckpt"], "give a file")
    line = str(error.value)
    assert line.startswith(
        "Hub repository 'owner/name': cannot get a.ckpt or b.ckpt (http://127.0.0.1:9 cannot be reached"
    )
    assert line.endswith("; give a file") and "\n" not in line
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_switched_off(monkeypatch: pytest.MonkeyPatch, requests: list[str]) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch("owner/name", ["a.ckpt"], "give a file")
    assert not requests


def test_a_hub_that_answers_is_asked(requests: list[str]) -> None:
    assert unreachable() is None and requests == ["/"]
    with pytest.raises(UserError, match=r"cannot get a.ckpt \(.*404"):
        fetch("owner/name", ["a.ckpt"], "give a file")
    assert any("owner/name" in path for path in requests)
