"""Reading shards at memory speed: files written by hand, what opening costs, random batches, workers, memory reuse."""

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset

from lwd.data.batches import StepBatches
from lwd.data.gather import Buffers, MappedRows
from lwd.data.shards import LatentShards
from lwd.data.writing import write_stats
from lwd.errors import UserError
from lwd.groups import Group, Layout

LAYOUT = Layout([Group("tex", 2), Group("sem", 1)])
TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}


def write_by_hand(path, tensors, padding=0, size=None):
    """The safetensors format from its specification: length (8 bytes, little-endian), JSON header, data."""
    header, data = {}, b""
    for key, (kind, array) in tensors.items():
        raw = np.ascontiguousarray(array, dtype=np.dtype(TYPES[kind]).newbyteorder("<")).tobytes()
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 8 + padding)
    path.write_bytes((struct.pack("<Q", len(text)) + text + data)[:size])


def write_unit_stats(folder):
    """Means 1, 2 and deviations 1/2, 4: (x - mean) / std of small integers is exact in float32."""
    for key, mean, std in (("latents", [1.0, 2.0], [0.5, 4.0]), ("latents_sv", [3.0], [2.0])):
        shape = (1, len(mean), 1, 1)
        torch.save({"mean": torch.tensor(mean).view(shape), "std": torch.tensor(std).view(shape)},
                   folder / f"{key}_stats.pt")  # fmt: skip


def arrays(count, seed, kind="F32", grid=3):
    rng = np.random.default_rng(seed)

    def draw(channels):
        return rng.integers(-8, 9, (count, channels, grid, grid))

    widths = {"latents": 2, "latents_flip": 2, "latents_sv": 1, "latents_sv_flip": 1}
    tensors = {key: (kind, draw(width)) for key, width in widths.items()}
    tensors |= {key: ("F16", draw(4)) for key in ("feats_dino", "feats_dino_flip")}
    return tensors | {"labels": ("I64", rng.integers(0, 1000, count))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five shards, one of them with a single image and one with none; all arrays by key, end to end."""
    path = tmp_path_factory.mktemp("hand")
    shards = [arrays(count, seed) for seed, count in enumerate((3, 1, 0, 7, 5))]
    for number, shard in enumerate(shards):
        write_by_hand(path / f"{number}.safetensors", shard)
    write_unit_stats(path)
    return path, {key: np.concatenate([shard[key][1] for shard in shards]) for key in shards[0]}


def reference(whole, index, twin):
    """One image by plain NumPy in float64, where small integers make everything exact."""
    end = "_flip" if twin else ""
    tex = (whole["latents" + end][index] - np.array([1, 2])[:, None, None]) / np.array([0.5, 4])[:, None, None]
    sem = (whole["latents_sv" + end][index] - 3) / 2
    return np.concatenate([tex, sem]).astype(np.float32), whole["feats_dino" + end][index].astype(np.float16)


def assert_reads(shards, whole, indices, flips):
    batch = shards.read(torch.tensor(indices, dtype=torch.int64), torch.tensor(flips, dtype=torch.bool))
    assert batch.x1.shape == (len(indices), 3, 3, 3) and batch.features.shape == (len(indices), 4, 3, 3)
    for position, (index, flip) in enumerate(zip(indices, flips, strict=True)):
        x1, features = reference(whole, index, flip)
        assert np.array_equal(batch.x1[position].numpy(), x1)
        assert np.array_equal(batch.features[position].numpy(), features)
        assert batch.labels[position] == whole["labels"][index]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.booleans()), max_size=40))
def test_random_batches_are_the_images_one_by_one_bit_for_bit(folder, picks):
    """Any images in any order, repeated or none."""
    path, whole = folder
    assert_reads(LatentShards(path, LAYOUT), whole, [i for i, _ in picks], [f for _, f in picks])


@pytest.mark.parametrize("kind", ["F64", "F32", "F16"])
@pytest.mark.parametrize("padding", [0, 1, 2, 4])
def test_files_of_other_writers(tmp_path, kind, padding):
    """Other floating-point types, and headers whose odd length leaves the data unaligned."""
    shards = [arrays(4, seed, kind) for seed in range(2)]
    for number, shard in enumerate(shards):
        write_by_hand(tmp_path / f"{number}.safetensors", shard, padding * number)
    write_unit_stats(tmp_path)
    whole = {key: np.concatenate([shard[key][1] for shard in shards]) for key in shards[0]}
    assert_reads(LatentShards(tmp_path, LAYOUT), whole, [7, 0, 3, 4, 4], [True, False, True, True, False])


def test_every_image_and_twin_is_checked_when_it_is_first_read(tmp_path):
    tensors = arrays(4, 0)
    tensors["latents_flip"] = ("F32", tensors["latents_flip"][1].astype(float))
    tensors["latents_flip"][1][2, 1, 0, 0] = np.nan
    write_by_hand(tmp_path / "a.safetensors", tensors)
    write_unit_stats(tmp_path)
    shards = LatentShards(tmp_path, LAYOUT)
    shards.read(torch.arange(4), torch.tensor([True, True, False, True]))
    for _ in range(2):
        with pytest.raises(UserError, match="image 2, channel 1"):
            shards.read(torch.tensor([1, 2]), torch.tensor([True, True]))


# What opening costs


OPEN = """
import sys, resource, torch
from pathlib import Path
from lwd.data.shards import LatentShards
from lwd.groups import Group, Layout
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
LatentShards(sys.argv[1], Layout([Group("tex", 2), Group("sem", 1)]))
before = resident()
shards = LatentShards(sys.argv[2], Layout([Group("tex", 2), Group("sem", 1)]))
print(len(shards), resident() - before, float(shards.read(torch.tensor([5])).x1.sum()))
"""


def test_opening_reads_headers_only(folder, tmp_path):
    """2 GB of (sparse) images: opened within 8 MB of memory, and one of them read."""
    images, grid = 1000, 256
    nbytes = {key: images * channels * grid * grid * 4 for key, channels in
              (("latents", 2), ("latents_flip", 2), ("latents_sv", 1), ("latents_sv_flip", 1))}  # fmt: skip
    header, end = {}, 0
    for key, size in (nbytes | {"labels": images * 8}).items():
        channels = 2 if key.startswith("latents") and "sv" not in key else 1
        shape = [images] if key == "labels" else [images, channels, grid, grid]
        kind = "I64" if key == "labels" else "F32"
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    write_unit_stats(tmp_path)
    out = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder[0]), str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout.split()
    assert int(out[0]) == images and int(out[1]) < 8e6 < end / 100
    assert float(out[2]) == grid * grid * (-1 / 0.5 - 2 / 4 - 3 / 2)  # zeros, standardised


@pytest.mark.parametrize("size", [4, 40, -1, -500])
def test_a_truncated_file_is_noticed_at_opening(tmp_path, size):
    write_by_hand(tmp_path / "a.safetensors", arrays(3, 0), size=size)
    write_unit_stats(tmp_path)
    with pytest.raises(UserError) as caught:
        LatentShards(tmp_path, LAYOUT)
    assert "a.safetensors: not a readable safetensors file" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ("I64", np.zeros(4, dtype=np.int64))}, "unequal length"),
        ({"latents": ("I32", np.zeros((3, 2, 3, 3)))}, "'latents' must be floating-point"),
        ({"feats_dino": ("F32", np.zeros((3, 4, 3, 3)))}, "'feats_dino' differs in dtype"),
    ],
)
def test_headers_that_do_not_fit(tmp_path, change, message):
    write_by_hand(tmp_path / "a.safetensors", arrays(3, 0) | change)
    write_unit_stats(tmp_path)
    with pytest.raises(UserError, match=message):
        LatentShards(tmp_path, LAYOUT)


def test_shards_without_images(tmp_path):
    write_by_hand(tmp_path / "a.safetensors", arrays(0, 0))
    write_unit_stats(tmp_path)
    with pytest.raises(UserError, match="hold no images"):
        LatentShards(tmp_path, LAYOUT)


# DataLoader


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_either_kind_give_the_same_batches(folder, context):
    batches = StepBatches(LatentShards(folder[0], LAYOUT, seed=3), 8, seed=1)
    batches[0]  # whatever the parent has cached travels too
    loader = DataLoader(batches, batch_size=None, sampler=range(5), num_workers=1, multiprocessing_context=context)
    for step, ((x1, labels, features), places) in enumerate(loader):
        expected, _ = batches[step]
        assert torch.equal(x1, expected.x1) and torch.equal(features, expected.features)
        assert torch.equal(labels, expected.labels) and torch.equal(places, torch.arange(8))


def test_default_collation_takes_the_batch_as_it_lies(folder, monkeypatch):
    shards = LatentShards(folder[0], LAYOUT)
    items = [shards[i] for i in range(16)]
    monkeypatch.setattr(torch, "stack", None)  # what would copy item by item
    for dataset in (shards, Subset(shards, range(16))):
        batch = next(iter(DataLoader(dataset, batch_size=16)))
        assert isinstance(batch, list) and len(batch) == 3
        for i, item in enumerate(items):
            assert all(torch.equal(column[i], part) for column, part in zip(batch, item, strict=True))


def test_items_are_a_sequence_that_any_collation_can_use(folder):
    shards = LatentShards(folder[0], LAYOUT)
    items = shards.__getitems__([4, 9, 4])
    assert len(items) == 3 and len(items[:2]) == 2 and all(len(item) == 3 for item in items)
    with pytest.raises(IndexError):
        items[3]
    column = torch.utils.data.default_collate(list(items))[0]
    assert torch.equal(column, torch.stack([item[0] for item in items]))


# Memory


def test_a_batchs_memory_is_used_again_only_when_nothing_refers_to_it():
    buffers = Buffers(keep=2)
    first = buffers.empty((4, 5), torch.float32)
    row, address = first[1].fill_(7), first.data_ptr()
    del first
    other = buffers.empty((4, 5), torch.float32)
    assert other.data_ptr() != address, "a view still refers to it"
    del row
    again = buffers.empty((5, 4), torch.float32)
    assert again.data_ptr() == address
    assert buffers.empty((5, 5), torch.float32).data_ptr() != other.data_ptr()


def test_unused_memory_is_bounded():
    buffers = Buffers(keep=2)
    held = [buffers.empty((8,), torch.uint8) for _ in range(5)]
    del held
    assert len(buffers._free) == 2


def test_batches_that_are_kept_stay_as_they_were(folder):
    shards = LatentShards(folder[0], LAYOUT)
    kept = list(DataLoader(shards, batch_size=3))
    copies = [[t.clone() for t in batch] for batch in DataLoader(shards, batch_size=3)]
    for batch, copy in zip(kept, copies, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, copy, strict=True))


def test_rows_of_no_tensor_at_all():
    rows = MappedRows([torch.empty(0, 3)])
    none = torch.empty(0, dtype=torch.int64)
    rows.gather(none, none, torch.empty(0, 3))


# Statistics


def test_one_nan_stops_the_statistics_and_names_its_place(tmp_path):
    for number in range(2):
        tensors = arrays(3, number)
        if number:
            tensors["latents"] = ("F32", tensors["latents"][1].astype(float))
            tensors["latents"][1][2, 1, 0, 0] = np.nan
        write_by_hand(tmp_path / f"{number}.safetensors", tensors)
    with pytest.raises(UserError) as caught:
        write_stats(tmp_path, LAYOUT)
    assert "1.safetensors: 'latents' of image 2, channel 1 is not finite" in str(caught.value)
    assert not list(tmp_path.glob("*.pt"))
