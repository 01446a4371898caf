"""Files that would unpack to far more than they hold, and lines that would fill a screen."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import lwd.evaluation.features as features
from lwd.datasets.fashion import FILES, read_idx
from lwd.errors import UserError
from lwd.evaluation.features import FeatureSet
from lwd.groups import Group
from lwd.images.npz import read_npz
from lwd.models.record import read_record


def test_an_archive_that_claims_more_than_deflate_can_hold(tmp_path: Path) -> None:
    """The sizes in both of the zip's headers say 8 GB, as does the array's: refused before memory is asked for."""
    file, content = tmp_path / "a.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": (2**31 - 4096,)})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", content.getvalue())
    real, claimed = len(content.getvalue()), len(content.getvalue()) + 2**31 - 4096
    data = file.read_bytes().replace(real.to_bytes(4, "little"), claimed.to_bytes(4, "little"))
    file.write_bytes(data)
    with pytest.raises(UserError, match="to unpack to"):
        read_npz(file)


def test_a_packed_data_set_is_unpacked_no_further_than_it_should_go(tmp_path: Path) -> None:
    idx = FILES["heldout"][1]
    (tmp_path / f"{idx.name}.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 39, 16]) + bytes(2**26)))
    tracemalloc.start()
    with pytest.raises(UserError, match="bytes of data, its header says"):
        read_idx(tmp_path, idx)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22  # of 2^26


def test_statistics_of_which_a_part_is_missing(tmp_path: Path) -> None:
    """Under the hash of what is there, so that nothing but the parts' names tells."""
    path, pair = tmp_path / "f.safetensors", (torch.zeros(3), torch.eye(3))
    whole = FeatureSet({"name": "x"}, {"path": "a", "count": 5, "sha256": "0"}, {}, stored={"pool": pair})
    whole.save(path, torch.device("cpu"), features=False)
    assert FeatureSet.load(path).stored.keys() == {"pool"}
    renamed = FeatureSet({"name": "x"}, whole.source, {"a": torch.zeros(2, 3)}, stored={"pool": pair})
    renamed.save(path, torch.device("cpu"), features=True)
    assert FeatureSet.load(path).features["a"].shape == (2, 3)
    with pytest.raises(KeyError):
        features._statistics({"stored.pool.mean": torch.zeros(3)})


@pytest.mark.parametrize("size", [2**70, 10**12, -1, 0, True, "8", 2.5])
def test_sizes_that_no_network_has(tmp_path: Path, size: object) -> None:
    sizes = {"layout": [{"name": "a", "channels": 2}], "input_size": 2, "num_classes": 3, "depth": 1, "heads": 1}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "width": size}))
    with pytest.raises(UserError, match=r"config\.json: not a LightningDiT's config.*: width: "):
        read_record(tmp_path)


def test_a_message_is_one_line_that_can_be_read() -> None:
    assert str(UserError("a\nb\r\u2028c")) == "a\\nb\\r\\u2028c"
    long = str(UserError("x.json: " + "y" * 10_000 + "; do this"))
    assert len(long) == 2000 and long.startswith("x.json: yyy") and long.endswith("yyy; do this") and " ... " in long
    assert str(UserError("caf\udce9: é, no such file")) == "caf\udce9: é, no such file"
    with pytest.raises(TypeError, match="name is text"):
        Group(3, 4)  # type: ignore[arg-type]
