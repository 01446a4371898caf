"""JSON as typed records: what fits is kept whole, and of what does not the line names file, key and remedy."""

import json
from typing import ClassVar

import pytest

from lwd.encoders.semvae import load_semvae
from lwd.errors import UserError
from lwd.records import Record, as_record, read_mapping, read_record, read_records
from lwd.stages.encode.writer import read_shard_record, record_path
from lwd.stages.semvae.heldout import Measured


class Inner(Record):
    size: int = 1


class Outer(Record):
    what: ClassVar[str] = "a box"
    remedy: ClassVar[str] = "pack it again"

    name: str
    inner: Inner = Inner()
    shares: tuple[float, ...] = ()


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def refused(call, *parts):
    with pytest.raises(UserError) as caught:
        call()
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_a_model_does_not_name_is_kept(tmp_path):
    data = {"name": "x", "inner": {"size": 3, "colour": "red"}, "later": [1, {"y": None}]}
    box = read_record(write(tmp_path / "box.json", data), Outer)
    assert box.inner.size == 3 and box.model_dump(exclude_unset=True) == data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "not a box: name: "),
        ({"name": 3}, "not a box: name: "),
        ({"name": "x", "inner": {"size": True}}, "not a box: inner.size: "),
        ({"name": "x", "inner": {"size": "3"}}, "not a box: inner.size: "),
        ({"name": "x", "inner": {"size": 10**10}}, "not a box: inner.size: "),
        ({"name": "x", "inner": None}, "not a box: inner: "),
        ({"name": "x", "shares": [0.5, float("nan")]}, "not a box: shares.1: "),
        ([{"name": "x"}], "not a box (a list, no mapping)"),
        (None, "not a box (null, no mapping)"),
        (True, "not a box (true or false, no mapping)"),
        (3.5, "not a box (a number, no mapping)"),
        ('{"name": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_what_does_not_fit(tmp_path, data, said):
    path = write(tmp_path / "box.json", data)
    remedy = "" if "JSON" in said else "; pack it again"
    refused(lambda: read_record(path, Outer), f"{path}: {said}", remedy)


def test_lists_and_mappings(tmp_path):
    path = write(tmp_path / "boxes.json", [{"name": "x"}, {"name": "y"}])
    assert [box.name for box in read_records(path, Outer)] == ["x", "y"]
    refused(
        lambda: read_mapping(path, "a recipe", "remove it"), f"{path}: not a recipe (a list, no mapping); remove it"
    )
    write(path, [{"name": "x"}, {"nome": "y"}])
    refused(lambda: read_records(path, Outer), f"{path}: [1]: not a box: ", "pack it again")
    write(path, {"name": "x"})
    refused(lambda: read_records(path, Outer), f"{path}: not a box (a mapping, no list); pack it again")
    assert read_mapping(path, "a recipe", "remove it") == {"name": "x"}
    refused(lambda: as_record("x", Outer, "there"), "there: not a box (text, no mapping)")


def test_files_that_only_a_later_run_of_ours_reads(tmp_path):
    path = write(record_path(tmp_path, 0), {"file": "a", "images": 1, "labels": {"x": 1}, "sha256": "", "skipped": []})
    refused(lambda: read_shard_record(tmp_path, 0), str(path), "labels.x", "start lwd encode again")
    path = write(tmp_path / "heldout.json", [{"step": 1, "mse": 0.5}, {"step": "two"}])
    refused(lambda: read_records(path, Measured), f"{path}: [1]", "step", "remove it")
    write(tmp_path / "config.json", {"feature_dim": 8, "channels": 2, "depth": 10**9})
    refused(lambda: load_semvae(tmp_path), str(tmp_path / "config.json"), "depth", "`lwd semvae`")
