"""`lwd data stats`: shards of somebody else's, without statistics, become data that trains."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwd.cli.main import main
from lwd.config import load
from lwd.data import LatentShards
from lwd.data.folder_stats import complete
from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.stages import train
from lwd.stages.experiment import Experiment

SFD = Layout([Group("tex", 3), Group("sem", 2)])


def latents(seed: int, channels: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(40, channels, 4, 4, generator=torch.Generator().manual_seed(seed)) + 1


def write(folder: Path, seed: int, **others: torch.Tensor) -> None:
    """Two shards under SFD's keys, as `SFD`'s loader takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(2):
        tensors = {"latents": latents(seed + part, 3), "latents_sv": latents(seed + part + 9, 2, 4.0), **others}
        flips = {f"{key}_flip": value.flip(-1).contiguous() for key, value in tensors.items()}
        labels = torch.zeros(40, dtype=torch.int64)
        save_file(tensors | flips | {"labels": labels}, folder / f"latents_rank00_shard{part:04d}.safetensors")


def command(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr("sys.argv", ["lwd", "data", "stats", *map(str, arguments)])
        main()
    return int(end.value.code or 0)


def test_the_remedy_that_is_named_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the refusal says, done; then the latents are standardised by train's numbers, in both splits."""
    write(tmp_path / "train", 0)
    write(tmp_path / "heldout", 50)
    with pytest.raises(UserError) as error:
        LatentShards(tmp_path / "train", SFD)
    named = re.search(r"`lwd data stats (\S+)`", str(error.value))
    assert named is not None and command(named[1]) == 0
    assert capsys.readouterr().out.count("wrote") == 4
    tex = torch.cat([latents(0, 3), latents(1, 3)])
    for split, source in (("train", tex), ("heldout", torch.cat([latents(50, 3), latents(51, 3)]))):
        x1, _ = LatentShards(tmp_path / split, SFD, flip=False)[7]
        expected = (source[7] - tex.mean((0, 2, 3))[:, None, None]) / tex.std((0, 2, 3), correction=0)[:, None, None]
        torch.testing.assert_close(x1[:3], expected, rtol=1e-4, atol=1e-5)  # float32, multiplied by 1 / std
    assert command(tmp_path) == 0 and "all statistics are there already" in capsys.readouterr().out


def test_what_is_there_stays_and_what_lacks_is_made(tmp_path: Path) -> None:
    write(tmp_path, 0)
    complete(tmp_path)
    (tmp_path / "latents_sv_stats.pt").unlink()
    (tmp_path / "latents_stats.pt").write_bytes(b"SFD's own")
    assert complete(tmp_path) == [tmp_path / "latents_sv_stats.pt"]
    assert (tmp_path / "latents_stats.pt").read_bytes() == b"SFD's own"
    with pytest.raises(UserError, match=r"lwd data stats \S*/shards`"):
        LatentShards(shutil.copytree(tmp_path, tmp_path / "shards", ignore=shutil.ignore_patterns("*_stats.pt")), SFD)


def test_other_keys_and_other_axes(tmp_path: Path) -> None:
    """Where nothing is called latents; features and twins are none."""
    tensors = {"audio": torch.randn(30, 5, 7), "feats_dino": torch.randn(30, 8, 2, 2), "labels": torch.zeros(30).long()}
    save_file(tensors | {"audio_flip": tensors["audio"].clone()}, tmp_path / "a.safetensors")
    assert complete(tmp_path) == [tmp_path / "audio_stats.pt"]
    shards = LatentShards(tmp_path, Layout([Group("sound", 5, key="audio")]), flip=False, features=False)
    torch.testing.assert_close(
        shards.statistics.mean, tensors["audio"].mean((0, 2), keepdim=True), rtol=1e-5, atol=1e-6
    )


def test_what_has_no_latents_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path) == 2 and "no *.safetensors shards here" in capsys.readouterr().err
    save_file({"labels": torch.zeros(3).long()}, tmp_path / "a.safetensors")
    assert command(tmp_path) == 2 and "hold no latents" in capsys.readouterr().err
    (tmp_path / "a.safetensors").unlink()
    write(tmp_path, 0)
    file = tmp_path / "latents_rank00_shard0001.safetensors"
    tensors = load_file(file)
    tensors["latents"][3, 1] = torch.nan
    save_file(tensors, file)
    assert command(tmp_path) == 2 and "'latents' of image 3, channel 1 is not finite" in capsys.readouterr().err
    assert not list(tmp_path.glob("*_stats.pt"))


def test_training_on_data_whose_statistics_were_lost(data: Path, tmp_path: Path, overrides: list[str]) -> None:
    """The same numbers as encoding left."""
    copy = shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("*_stats.pt"))
    more = [f"data.path={copy}", "train.steps=1", "train.schedule.kind=synchronous"]
    config = load(Experiment, Path("configs/digits.yaml"), [*overrides, *more])
    with pytest.raises(UserError, match="lwd data stats"):
        train.run(config)
    complete(copy)
    assert train.run(config).is_dir()
    for file in sorted((data / "heldout").glob("*_stats.pt")):
        ours, theirs = (torch.load(folder / "heldout" / file.name) for folder in (copy, data))
        assert all(torch.equal(ours[key], theirs[key]) for key in ("mean", "std"))
