"""Prepared data sets: what is written is read, through `lwd encode` too, and each misfit is one line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lwd.config import load
from lwd.datasets.builtin import DATASETS, digits
from lwd.datasets.prepared import SPLITS, read_prepared, write_prepared
from lwd.errors import UserError
from lwd.files import read_json
from lwd.stages.encode.run import run
from lwd.stages.experiment import Experiment

Tensors = dict[str, Tensor]
DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"


def tensors(train: int = 5, heldout: int = 3, size: int = 4) -> Tensors:
    """Every level somewhere; both splits have the classes 0 to 2."""
    made = {}
    for split, count in (("train", train), ("heldout", heldout)):
        levels = torch.arange(count * 3 * size**2) * 7 % 256
        made[f"{split}_images"] = levels.to(torch.uint8).reshape(count, 3, size, size)
        made[f"{split}_labels"] = torch.arange(count) % 3
    return made


def stored(folder: Path, content: Tensors) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in content.items()}, folder / "set.safetensors")
    return folder / "set.safetensors"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_images_in_minus_1_to_1_and_labels(tmp_path: Path, dtype: torch.dtype) -> None:
    content = tensors()
    wanted = {key: tensor.numpy() for key, tensor in content.items()}
    content |= {key: tensor.to(dtype) for key, tensor in content.items() if key.endswith("labels")}
    for split, (images, labels) in read_prepared(stored(tmp_path, content)).items():
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        exact = wanted[f"{split}_images"].astype(np.float32) / np.float32(127.5) - 1
        assert np.array_equal(images.numpy(), exact) and np.array_equal(labels.numpy(), wanted[f"{split}_labels"])


def test_float32_is_taken_as_it_is_and_what_is_written_is_read(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 1, 6, 6, generator=generator) * 2 - 1
    images[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])
    splits = {"train": (images, torch.tensor([0, 1, 1, 0])), "heldout": (-images.mT, torch.tensor([1, 0, 0, 1]))}
    got = read_prepared(write_prepared(tmp_path / "a.safetensors", splits))
    assert all(torch.equal(a, b) for split in splits for a, b in zip(got[split], splits[split], strict=True))


def put(key: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], None]:
    return lambda content: content.update({key: change(content[key])})


def set_at(row: int, value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor[row] = value
        return tensor

    return change


FORM = r"needed is \(N, c, H, H\), c 1 or 3, H even, N at least 1, of uint8 \(0 to 255\) or float32 \(-1 to 1\)"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda content: content.pop("train_images"), "train_images is missing; a prepared data set has train_images,"),
        (
            lambda content: content.pop("heldout_labels"),
            "heldout_labels is missing; .*, heldout_images, heldout_labels",
        ),
        (put("train_images", lambda x: x.double()), rf"train_images is float64 \(5, 3, 4, 4\); {FORM}"),
        (put("train_images", lambda x: x[:, 0]), rf"train_images is uint8 \(5, 4, 4\); {FORM}"),
        (put("train_images", lambda x: x[:, :2]), rf"train_images is uint8 \(5, 2, 4, 4\); {FORM}"),
        (put("train_images", lambda x: x[..., :2]), rf"train_images is uint8 \(5, 3, 4, 2\); {FORM}"),
        (put("train_images", lambda x: x[..., :3, :3]), rf"train_images is uint8 \(5, 3, 3, 3\); {FORM}"),
        (put("heldout_images", lambda x: x[:0]), rf"heldout_images is uint8 \(0, 3, 4, 4\); {FORM}"),
        (put("train_images", lambda x: x[0, 0, 0, 0]), rf"train_images is uint8 \(\); {FORM}"),
        (put("train_images", lambda x: x.permute(0, 2, 3, 1)), r"put channels first, images\.permute\(0, 3, 1, 2\)"),
        (put("train_images", lambda x: x.float()), r"train_images\[0\] has values outside -1 to 1, or NaN; scale them"),
        (
            put("heldout_images", lambda x: set_at(2, torch.nan)(x.float() / 256)),
            r"heldout_images\[2\] has values outside -1 to 1, or NaN",
        ),
        (put("heldout_images", lambda x: x[..., :2, :2]), r"heldout_images holds images of \(3, 2, 2\), train_images"),
        (put("train_labels", lambda x: x.float()), r"train_labels is float32 \(5,\); needed are whole numbers \(N,\)"),
        (put("train_labels", lambda x: x > 0), r"train_labels is bool \(5,\); needed are whole numbers"),
        (put("train_labels", lambda x: x[:, None]), r"train_labels is int64 \(5, 1\); needed are whole numbers"),
        (put("heldout_labels", lambda x: x[:2]), "heldout_labels has 2 labels, heldout_images 3 images"),
        (put("train_labels", set_at(3, -1)), r"train_labels\[3\] is -1; number the classes from 0 on, below 65536"),
        (put("train_labels", set_at(3, 2**40)), r"train_labels\[3\] is 1099511627776; number the classes"),
        (put("heldout_labels", set_at(1, 7)), r"heldout_labels\[1\] is 7, a class that train_labels lacks; leave"),
    ],
)
def test_a_misfit_is_one_line(tmp_path: Path, damage: Callable[[Tensors], None], complaint: str) -> None:
    content = tensors()
    damage(content)
    path = stored(tmp_path, content)
    with pytest.raises(UserError, match=complaint) as refused:
        read_prepared(path)
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file(tmp_path: Path, keep: int) -> None:
    path = stored(tmp_path, tensors())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"not a readable safetensors file \(.*\); write it again$") as refused:
        read_prepared(path)
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.safetensors: no such file; a prepared data set is"):
        read_prepared(tmp_path / "none.safetensors")


def encode(folder: Path, dataset: str | Path, *more: str) -> Path:
    quick = ("compute.progress=false", "encode.encoder_steps=2", "encode.judge_steps=2")
    return run(load(Experiment, DIGITS, [*quick, f"output={folder}", f"encode.dataset={dataset}", *more]))


def test_encode_makes_the_shards_of_a_built_in_set_of_the_same_images(tmp_path: Path, monkeypatch: Any) -> None:
    """A copy of some digits: every file of tensors equal, byte for byte. The recipe holds the copy's own digest, so
    that a changed file is noticed."""
    few = {split: tuple(each[:100] for each in digits(split)) for split in SPLITS}
    monkeypatch.setitem(DATASETS, "few", lambda split: few[split])
    copy = write_prepared(tmp_path / "copy.safetensors", few)
    whole, again = encode(tmp_path / "a", "few"), encode(tmp_path / "b", copy)
    names = [path.relative_to(whole) for path in whole.rglob("*.safetensors")]
    assert len(names) > 4 and all((whole / name).read_bytes() == (again / name).read_bytes() for name in names)
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    assert read_json(again / "manifest.json")["recipe"]["images"] == {"train": digest, "heldout": digest}
    content = load_file(copy)
    stored(tmp_path, content | {"train_images": -content["train_images"]}).rename(copy)
    with pytest.raises(UserError, match="encoded with other settings or images"):
        encode(tmp_path / "b", copy)
    with pytest.raises(UserError, match=r"encode.heldout: .*copy\.safetensors has held-out images of its own"):
        encode(tmp_path / "c", copy, "encode.heldout=/tmp")
