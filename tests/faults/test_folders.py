"""Checkpoints that were moved or damaged, folders in use, disks that are full: one line, and nothing is lost."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from test_killed import assert_same_files, changed

import lwd.runtime.checkpoint
from lwd.console import one_line_errors
from lwd.errors import UserError
from lwd.evaluation.features import FeatureSet
from lwd.files import discard
from lwd.models.pretrained import load_checkpoint_model, newest_checkpoint
from lwd.run import RunConfig
from lwd.runtime.checkpoint import Damaged, find_checkpoints
from lwd.runtime.lock import alone_in
from lwd.stages import sample, train
from lwd.stages.encode.run import run as encode
from lwd.stages.experiment import Experiment


def flip(file: Path, place: int = -3) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def folder_of(config: Experiment) -> Path:
    return config.output / "train" / "learned"


def test_checkpoints_that_were_moved_and_linked_back(experiment: Experiment, tmp_path: Path) -> None:
    """Old ones, one renamed, and what an interrupted removal leaves of a link: links go, what they point to stays."""
    config = changed(experiment, tmp_path, 4, checkpoint_every=2, keep_checkpoints=0)
    train.run(config)
    folder, elsewhere = folder_of(config), tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(folder / "step-00000002", elsewhere)
    (folder / "step-2").symlink_to(elsewhere / "step-00000002")
    (folder / ".step-00000001.1.old").symlink_to(elsewhere / "step-00000002")
    train.run(changed(experiment, tmp_path, 8, checkpoint_every=2, keep_checkpoints=1))
    assert list(find_checkpoints(folder)) == [8] and not list(folder.glob(".step-*"))
    assert (elsewhere / "step-00000002" / "state.json").is_file()
    afresh = changed(experiment, tmp_path, 4, checkpoint_every=0, resume=False)
    shutil.move(folder / "step-00000008", elsewhere)
    (folder / "step-00000008").symlink_to(elsewhere / "step-00000008")
    train.run(afresh)
    assert list(find_checkpoints(folder)) == [4] and (elsewhere / "step-00000008" / "state.json").is_file()


def test_discard_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("x")
    (tmp_path / "here").symlink_to(tmp_path / "there")
    discard(tmp_path / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and (tmp_path / "there" / "file").is_file()


def test_the_one_before_a_damaged_checkpoint(experiment: Experiment, tmp_path: Path) -> None:
    """Three, the last two damaged in different ways; gone on with, it is the run that nothing happened to."""
    config = changed(experiment, tmp_path / "a", 6, checkpoint_every=2, keep_checkpoints=0)
    train.run(config)
    first, second, third = find_checkpoints(folder_of(config)).values()
    flip(second / "optimizer.safetensors")
    state = json.loads((third / "state.json").read_text())
    (third / "state.json").write_text(json.dumps(state | {"step": 7}))
    longer = {"checkpoint_every": 2, "keep_checkpoints": 0}
    with pytest.raises(Damaged, match=r"says step 7, its folder step 6; remove .*step-00000006 to go on .*=previous"):
        train.run(changed(experiment, tmp_path / "a", 8, **longer))
    mended = train.run(changed(experiment, tmp_path / "a", 8, resume="previous", **longer))
    whole = train.run(changed(experiment, tmp_path / "b", 8, checkpoint_every=0))
    assert_same_files(mended, whole)
    assert list(find_checkpoints(folder_of(config))) == [2, 4, 6, 8]

    for path in find_checkpoints(folder_of(config)).values():
        (path / "schedule.json").unlink()
    with pytest.raises(UserError, match=r"damaged, and there is none before it; start with compute.resume=false"):
        train.run(changed(experiment, tmp_path / "a", 10, resume="previous", **longer))
    assert len(find_checkpoints(folder_of(config))) == 4, "nothing was removed"
    assert first.is_dir()


def test_what_opens_a_checkpoint_looks_at_what_it_reads(experiment: Experiment, tmp_path: Path) -> None:
    config = changed(experiment, tmp_path, 4)
    end = train.run(config)
    flip(end / "optimizer.safetensors")
    load_checkpoint_model(end)  # of which nothing is read here
    flip(end / "ema" / "model.safetensors")
    with pytest.raises(Damaged, match=r"ema/model\.safetensors: damaged or missing"):
        load_checkpoint_model(end)
    with pytest.raises(Damaged, match=r"ema/model\.safetensors: damaged or missing"):
        sample.run(config)


def test_samples_are_of_the_run_that_the_recipe_describes(experiment: Experiment, tmp_path: Path) -> None:
    mine = experiment.train.model_copy(update={"name": "mine"})
    config = changed(experiment, tmp_path, 4).model_copy(update={"train": mine})
    assert config.trained == tmp_path / "train" / "mine"
    with pytest.raises(UserError, match="train/mine: no checkpoints here"):
        newest_checkpoint(config.trained)


def test_classes_that_the_data_lacks(experiment: Experiment) -> None:
    shards = experiment.shards("train", features=False)
    given = RunConfig(groups=experiment.groups, leader="sem", model={"name": "LightningDiT-Ti/1"})
    with pytest.raises(
        UserError, match=r"labels run from 0 to 9, model.num_classes is 1000 .*set model.num_classes=10"
    ):
        given.check_labels(shards)
    for meant in (10, 1000):
        RunConfig(**dict(given) | {"model": {"name": "LightningDiT-Ti/1", "num_classes": meant}}).check_labels(shards)
    few = RunConfig(**dict(given) | {"model": {"name": "LightningDiT-Ti/1", "num_classes": 9}})
    with pytest.raises(UserError, match="allows 0 to 8"):
        few.check_labels(shards)


def test_train_before_a_sweep_says_what_to_run(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"schedule.json: no schedule yet; run lwd sweep first, .*synchronous or offset"
    ):
        train.run(experiment.model_copy(update={"output": tmp_path / "new"}))


def test_two_encode_in_one_folder(experiment: Experiment, tmp_path: Path) -> None:
    """Held by this process for another; what is not ours is not touched by the refusal."""
    config = experiment.model_copy(update={"data": experiment.data.model_copy(update={"path": tmp_path / "data"})})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other files"):
        encode(config)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["letter.txt"]
    (tmp_path / "data" / "letter.txt").unlink()

    def refuse(folder: Path) -> None:
        raise UserError(f"{folder}: in use")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lwd.stages.encode.run.alone_in", refuse)
        with pytest.raises(UserError, match="data: in use"):
            encode(config)
    assert not list((tmp_path / "data").iterdir()), "nothing was done without the lock"
    with alone_in(tmp_path / "data"):
        pass
    assert encode(config) == tmp_path / "data", "a lock alone is an empty folder"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 9 bytes.\nmore"),
    ],
)
def test_too_much_memory_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BaseException) as caught, one_line_errors():
        raise error
    assert getattr(caught.value, "exit_code", None) == 2
    said = capsys.readouterr().err
    assert said.startswith("lwd: not enough memory (") and said.count("\n") == 1


def test_a_real_allocation_that_fails_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for size in (2**46, 2**62):
        with pytest.raises(BaseException) as caught, one_line_errors():
            torch.empty(size, 4)
        assert getattr(caught.value, "exit_code", None) == 2, size
        assert "not enough memory" in capsys.readouterr().err


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="a bug"), one_line_errors():
        raise RuntimeError("a bug")


def test_a_full_disk_where_features_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(lwd.runtime.checkpoint, "save_file", full)
    features = FeatureSet({"name": "stub"}, {"path": "x"}, features={"pool": torch.zeros(3, 2)})
    with pytest.raises(OSError, match="No space left") as caught:
        features.save(tmp_path / "features.safetensors", torch.device("cpu"), features=True)
    assert caught.value.errno in (errno.EIO, errno.ENOSPC) and not list(tmp_path.iterdir())


def test_one_place_writes_safetensors() -> None:
    """Whoever else calls save_file has its errors, which are no OSError, to catch."""
    source = Path(lwd.runtime.checkpoint.__file__).parents[1]
    users = [path for path in source.rglob("*.py") if re.search("import .*save_file", path.read_text("utf-8"))]
    assert users == [Path(lwd.runtime.checkpoint.__file__)]
