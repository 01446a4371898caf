"""What a command prints beside its results: its own line alone, with the name of the file."""

from __future__ import annotations

import contextlib
import errno
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from lwd.console import one_line_errors
from lwd.data.stats import load_stats
from lwd.errors import UserError
from lwd.files import atomic_path, writing_to
from lwd.images.decode import ImageError, open_picture
from lwd.runtime.lock import LOCK, alone_in
from lwd.stages.sample.blocks import BlockWriter
from lwd.training.logging import MetricLog


def damaged(folder: Path) -> list[Path]:
    """A JPEG whose EXIF is cut, a TIFF that ends in its header, a TorchScript archive in place of statistics."""
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    exif = Image.Exif()
    exif[0x010E] = "x" * 50
    image.save(folder / "exif.jpg", exif=exif.tobytes()[:30])
    whole = io.BytesIO()
    image.save(whole, "TIFF")
    (folder / "cut.tif").write_bytes(whole.getvalue()[:60])
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), folder / "latents_stats.pt")
    return sorted(folder.iterdir())


def read(files: list[Path]) -> None:
    for file in files:
        with contextlib.suppress(ImageError, UserError):
            load_stats(file, 3) if file.suffix == ".pt" else open_picture(file, file.name)


def test_libraries_say_nothing_within_a_command(tmp_path: Path) -> None:
    files = damaged(tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with one_line_errors():
            read(files)
        assert said == []
        read(files)
        assert len({str(one.message)[:20] for one in said}) >= 3  # which they would have said


def line_of(capsys: pytest.CaptureFixture[str], error: OSError) -> str:
    with pytest.raises(typer.Exit), one_line_errors():
        raise error
    return capsys.readouterr().err


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    with pytest.raises(OSError, match="No space") as error, atomic_path(path):
        raise full()
    assert line_of(capsys, error.value) == f"lwd: {path}: No space left on device\n"
    with pytest.raises(OSError, match="No space") as error, writing_to(path), Path("/dev/full").open("w") as file:
        file.write("x")
        file.flush()
    assert line_of(capsys, error.value) == f"lwd: {path}: No space left on device\n"
    other = OSError(errno.ENOENT, "No such file or directory", "what was read")
    with pytest.raises(OSError, match="No such") as error, writing_to(path):
        raise other
    assert error.value.filename == "what was read"


def test_what_is_written_in_place_names_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricLog(tmp_path / "trace.jsonl", lambda x: x, True)
    assert log._file is not None
    log._file.path = Path("/dev/full")
    log.add(0, {"loss": torch.tensor(1.0)})
    with pytest.raises(OSError, match="/dev/full"):
        log.flush()

    def save(self: Image.Image, *arguments: object, **settings: object) -> None:
        raise full()

    monkeypatch.setattr(Image.Image, "save", save)
    writer = object.__new__(BlockWriter)
    writer._folder = tmp_path
    with pytest.raises(OSError, match=r"images/.*\.png"):
        writer._write_files(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), 0, "png")


def test_a_lock_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise full()

    monkeypatch.setattr("lwd.runtime.lock.socket.gethostname", nobody)
    with pytest.raises(OSError, match=LOCK), alone_in(tmp_path):
        pass
