"""Files that are whole or absent."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lwd
from lwd.errors import UserError
from lwd.files import atomic_path, discard, printable, read_json, write_json, write_text
from lwd.runtime.checkpoint import save_tensors


class WriterError(Exception):
    pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    """A folder ``target`` that holds a file ``old``."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")
    return target


def test_a_new_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent  # one file system, or the rename is no rename
        assert not path.exists()
    assert path.read_text() == "new" and names(path.parent) == ["file.txt"]


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("error", [WriterError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [True, False])
def test_an_error_leaves_the_old_file_and_no_temporaries(tmp_path, error, existing):
    path = tmp_path / "file.txt"
    if existing:
        path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == (["file.txt"] if existing else [])
    if existing:
        assert path.read_text() == "old"


def test_a_folder_appears_and_is_replaced_as_a_whole(folder):
    with atomic_path(folder) as temporary:
        (temporary / "sub").mkdir(parents=True)
        (temporary / "sub" / "new").write_text("new")
        assert names(folder) == ["old"]
    assert names(folder) == ["sub"] and (folder / "sub" / "new").read_text() == "new"
    assert names(folder.parent) == ["target"]


def test_an_error_leaves_the_old_folder_and_no_temporaries(folder):
    with pytest.raises(WriterError), atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "half").write_text("half")
        raise WriterError
    assert names(folder) == ["old"] and names(folder.parent) == ["target"]


def test_a_file_never_replaces_a_folder(folder):
    link = folder.parent / "link"
    link.symlink_to(folder)
    for path in (folder, link):
        with pytest.raises(UserError, match="is a folder, which a file would replace"):
            write_text(path, "now a file")
    assert names(folder) == ["old"] and names(folder.parent) == ["link", "target"] and link.is_symlink()


@pytest.mark.parametrize("leftover", ["file", "folder"])
def test_a_leftover_of_a_killed_process_with_this_id_is_swept_away(tmp_path, leftover):
    path = tmp_path / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("first")
    if leftover == "folder":
        temporary.mkdir()
        (temporary / "junk").write_text("junk")
    else:
        temporary.write_text("junk")
    write_text(path, "second")
    assert path.read_text() == "second" and names(tmp_path) == ["file.txt"]


def test_everything_is_flushed_before_the_rename_and_the_parent_after(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, type(tmp_path).replace

    def recorded_fsync(descriptor):
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def recorded_replace(self, target):
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(type(tmp_path), "replace", recorded_replace)
    with atomic_path(tmp_path / "run") as temporary:
        (temporary / "sub").mkdir(parents=True)
        (temporary / "a").write_text("a")
        (temporary / "sub" / "b").write_text("b")
    assert {"a", "b"} <= set(events[: events.index("rename")])
    assert events[-1] == tmp_path.name


def test_a_writer_that_forgets_to_write_leaves_the_old_folder(folder):
    with pytest.raises(FileNotFoundError), atomic_path(folder):
        pass
    assert names(folder.parent) == ["target"] and names(folder) == ["old"]


def test_a_writer_that_forgets_to_write_leaves_the_old_file(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file.txt"):
        pass
    assert (tmp_path / "file.txt").read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_a_folder_may_replace_a_file(tmp_path):
    (tmp_path / "target").write_text("old")
    with atomic_path(tmp_path / "target") as temporary:
        temporary.mkdir()
    assert (tmp_path / "target").is_dir()


def test_a_link_to_a_folder_may_be_replaced(folder):
    link = folder.parent / "latest"
    link.symlink_to(folder)
    with atomic_path(link) as temporary:
        temporary.mkdir()
    assert link.is_dir() and not link.is_symlink() and names(folder) == ["old"]
    assert names(folder.parent) == ["latest", "target"]


def test_discard_removes_a_folder_and_leaves_nothing(folder):
    discard(folder)
    assert names(folder.parent) == []


def test_json_round_trip(tmp_path):
    data = {"b": [1, 2.5, None, True], "a": {"ü": "x"}}
    write_json(tmp_path / "x.json", data)
    text = (tmp_path / "x.json").read_text()
    assert read_json(tmp_path / "x.json") == data == json.loads(text)
    assert text.endswith("}\n") and '\n  "b"' in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), object()])
def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path, value):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "x.json", {"a": [value]})
    assert read_json(tmp_path / "x.json") == 1 and names(tmp_path) == ["x.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"{'a': 1}", b"\xff\xfe\x00", b"1 2"])
def test_malformed_json_is_one_line_with_its_path(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(tmp_path / "x.json")
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'}: not valid JSON")
    assert "\n" not in str(caught.value)


def test_missing_json(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match="no such file"):
            read_json(path)


def test_files_have_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        save_tensors(temporary / "a.safetensors", {"x": torch.ones(2)})
    assert (tmp_path / "folder" / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


NAME = b"caf\xe9 \xc3\xa9.jpg".decode("utf-8", "surrogateescape")  # Latin-1, then UTF-8, as a folder lists it


def test_every_name_can_be_shown():
    assert printable(NAME) == "caf\\xe9 é.jpg"
    assert printable("half \ud83d of a pair") == "half \\ud83d of a pair"
    in_ascii = b"\xc3\xa9.jpg".decode("ascii", "surrogateescape")  # the same file under the locale C
    assert printable(in_ascii) == "é.jpg"


def test_text_is_utf8_under_every_locale(tmp_path):
    """In a process whose locale knows ASCII alone; surrogates in JSON come back, since they name a file."""
    script = (
        "import sys; from pathlib import Path; from lwd.files import *; import locale;"
        "assert 'utf' not in locale.getpreferredencoding(False).lower();"
        "p = Path(sys.argv[1]); write_text(p / 'a.html', 'λ caf\\udce9'); "
        "write_json(p / 'b.json', ['λ', 'caf\\udce9']);"
        "(p / 'c.json').write_bytes('\"λ\"'.encode()); assert read_json(p / 'c.json') == 'λ'"
    )
    locale = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    subprocess.run(command, env={**os.environ, **locale}, check=True)
    assert (tmp_path / "a.html").read_bytes() == "λ caf\\xe9".encode()
    assert read_json(tmp_path / "b.json") == ["λ", "caf\udce9"]


def test_text_files_name_their_encoding():
    """Whatever is written or read as text under src says how, so that no locale has a say."""
    found = []
    for file in sorted(Path(lwd.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            mode = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            as_text = node.func.attr == "open" and mode in ("r", "w", "a", "a+", "x")
            if (node.func.attr in ("write_text", "read_text") or as_text) and not any(
                keyword.arg == "encoding" for keyword in node.keywords
            ):
                found.append(f"{file.name}:{node.lineno}")
    assert found == []
