"""The ImageNet recipes run as they are chained in docs/imagenet.md, with a two-block network on a dozen images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lwd.config import load
from lwd.data import write_shard, write_stats
from lwd.schedules import Schedule
from lwd.stages import probe, train
from lwd.stages.experiment import Experiment

FOLDER = Path(__file__).parents[2] / "configs" / "imagenet256"
STOPS = "train.checkpoint_steps=[2,3,4]"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of ImageNet's shapes: twelve images of noise."""
    folder, generator = tmp_path_factory.mktemp("imagenet"), torch.Generator().manual_seed(0)
    layout = load(Experiment, FOLDER / "base.yaml").layout

    def noise(channels: int) -> torch.Tensor:
        return torch.randn(12, channels, 16, 16, generator=generator)

    sides = [{group.name: noise(group.channels) for group in layout.groups} for _ in range(2)]
    (folder / "train").mkdir()
    write_shard(
        folder / "train" / "a.safetensors", layout, sides[0], torch.arange(12), sides[1], noise(768), noise(768)
    )
    write_stats(folder / "train", layout)
    return folder


def test_probe_weak_model_and_two_budgets_of_one_run(data: Path, tmp_path: Path) -> None:
    def recipe(name: str, *more: str) -> Experiment:
        small = ["model.name=LightningDiT-Mini/1", "probe.batch=4", "train.batch=4", "compute.progress=false"]
        here = [f"output={tmp_path}", f"data.path={data}", f"train.schedule.path={tmp_path}/probe/schedule.json"]
        return load(Experiment, FOLDER / f"{name}.yaml", [*small, *here, *more])

    learned = probe.run(recipe("probe", "probe.steps=4", "probe.burn_in=2"))
    weak = train.run(recipe("weak", "train.steps=2"))
    first = train.run(recipe("xl", "train.steps=3", STOPS))
    second = train.run(recipe("xl-1m", "train.steps=4", STOPS))
    assert (weak.parent.name, weak.name) == ("weak", "step-00000002")
    assert first.parent == second.parent and second.name == "step-00000004"
    assert sorted(path.name for path in second.parent.glob("step-*")) == [f"step-{n:08d}" for n in (2, 3, 4)]
    assert len({Schedule.load(folder / "schedule.json").hash() for folder in (weak, first, second)}) == 1
    assert Schedule.load(weak / "schedule.json").hash() == learned.hash()


@pytest.mark.parametrize("name", ["offset", "synchronous"])
def test_baselines_need_no_probe(name: str, data: Path, tmp_path: Path) -> None:
    small = ["model.name=LightningDiT-Mini/1", "train.batch=4", "train.steps=1", "compute.progress=false"]
    last = train.run(load(Experiment, FOLDER / f"{name}.yaml", [*small, f"output={tmp_path}", f"data.path={data}"]))
    wanted = {
        "offset": Schedule.offset(["tex", "sem"], "sem", 0.3),
        "synchronous": Schedule.synchronous(["tex", "sem"]),
    }
    assert last == tmp_path / "train" / name / "step-00000001"
    assert Schedule.load(last / "schedule.json").hash() == wanted[name].hash()
