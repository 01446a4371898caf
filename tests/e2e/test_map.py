"""A joint-time network: trained, mapped, scored, sampled under any schedule, and a schedule chosen on its map."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_three_groups import LAYOUT, add_depth

from lwd.config import load
from lwd.errors import UserError
from lwd.maps.files import read_maps
from lwd.models.pretrained import load_checkpoint_model
from lwd.runtime.checkpoint import save_tensors
from lwd.runtime.hub import save_model
from lwd.schedules import Schedule
from lwd.schedules.choice import ScheduleChoice
from lwd.schedules.schedule import TIMES
from lwd.stages import map as mapping
from lwd.stages import probe, sample, train
from lwd.stages.experiment import Experiment
from lwd.stages.score import run as score
from lwd.stages.score.run import file_names, on_screen
from ranks import in_two_processes

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
JOINT = (
    "train.times=independent",
    "train.local_times={density: logit_normal}",
    "map={images: 6, points: 4, batch: 64, block: 4}",
    "score={schedules: [synchronous, 'offset:0.3', 'power:-2'], kinetic_weights: [0.1], nodes: 5}",
    "sample.solver=heun",
    "sample.steps=2",
    "sample.num=8",
)


def configured(overrides: list[str], *more: str) -> Experiment:
    return load(Experiment, DIGITS, [*overrides, *JOINT, *more])


@pytest.fixture
def trained(overrides: list[str]) -> Experiment:
    config = configured(overrides)
    train.run(config)
    return config


def test_from_training_to_a_schedule(trained: Experiment, overrides: list[str]) -> None:
    output = trained.output
    checkpoint = output / "train" / "learned" / "step-00000008"
    assert Schedule.load(checkpoint / "schedule.json").any_other
    folder = mapping.run(trained)
    found = read_maps(folder)["heldout"]
    assert found.loss.shape == found.speed.shape == (1, 6, 4, 4, 2) and found.leader == "sem"
    assert not torch.equal(read_maps(folder)["train"].loss, found.loss)
    assert json.loads((folder / "map.json").read_text())["images"] == {"heldout": 6, "train": 6}
    assert (folder / "map.png").is_file() and not (folder / "parts").exists()

    # Killed after its first block: the same bytes.
    before = (folder / "map.safetensors").read_bytes()
    (folder / "map.json").unlink()
    mapping.run(trained)
    assert (folder / "map.safetensors").read_bytes() == before

    rows, record = score(configured(overrides, "score.samples=8", "score.heun=[3]", "score.suggest=distance"))
    assert [row.name for row in rows][:3] == ["synchronous", "offset:0.3", "power:-2"]
    first = rows[0]
    assert first.distance is not None and first.distance.more == 0 and first.lines.loss_more.value == 0
    assert {row.distance.nfe for row in rows if row.distance} == {4.0, 6.0}  # Heun in 2 steps; a kink splits one
    best = min(rows, key=lambda row: row.distance.value if row.distance else 1e9)
    assert Schedule.load(output / "score" / "suggested.json").hash() == best.schedule.hash()
    assert all(row.name[-14:] in on_screen(record) for row in rows) and (output / "score" / "score.png").is_file()

    probe.sweep(configured(overrides, "sweep.method=map"))
    table = json.loads((output / "sweep" / "table.json").read_text())
    assert table["cost"]["steps"] == 0 and len(table["rows"]) == 2
    chosen = Schedule.load(output / "schedule.json")
    assert chosen.provenance["method"] == "map" and chosen.learned == ("tex",)


def test_a_joint_network_is_sampled_under_any_schedule_and_another_under_its_own(
    trained: Experiment, overrides: list[str]
) -> None:
    sets = {}
    for name in ("synchronous", "power:2"):
        more = (f"sample.schedule={name}", f"sample.name={name[:5]}", "sample.formats=[latents]")
        folder = sample.run(configured(overrides, *more))
        sets[name] = load_file(next((folder / "latents").glob("*.safetensors")))["latents"]
        info = json.loads((folder / "samples.json").read_text())
    assert info["schedule"] != Schedule.synchronous(("tex", "sem")).hash()
    assert not torch.allclose(sets["synchronous"], sets["power:2"])
    curve = ["train.times=null", "train.schedule=synchronous", "train.name=curve"]
    train.run(configured(overrides, *curve))
    with pytest.raises(UserError, match=r"trained under schedule \w+, which is not power:2"):
        sample.run(configured(overrides, *curve, "sample.schedule=power:2"))
    sample.run(configured(overrides, *curve, "sample.schedule=synchronous", "sample.name=own"))
    with pytest.raises(UserError, match=r"knows no other pairs of local times; train with train.times=independent"):
        mapping.run(configured(overrides, *curve))


def test_what_is_missing_or_of_other_settings_is_said(trained: Experiment, overrides: list[str]) -> None:
    with pytest.raises(UserError, match=r"no map here; train a network with train.times=independent, then run lwd map"):
        score(trained)
    with pytest.raises(UserError, match="no map here"):
        probe.sweep(configured(overrides, "sweep.method=map"))
    mapping.run(trained)
    with pytest.raises(UserError, match=r"a map of other settings: map.points was 4, now 5"):
        mapping.run(configured(overrides, "map.points=5"))
    file = trained.output / "map" / "map.json"
    file.write_text(file.read_text().replace('"points": 4', '"points": 7'))
    with pytest.raises(UserError, match=r"map.json: not a map, or not that of map.safetensors"):
        read_maps(trained.output / "map")["heldout"]


def test_two_processes_measure_the_same_map(trained: Experiment, tmp_path: Path) -> None:
    """Each block belongs to one process, so that what is measured of it is the same to the bit."""
    file = mapping.run(trained) / "map.safetensors"
    alone = file.read_bytes()
    (file.parent / "map.json").unlink()
    file.unlink()
    in_two_processes(tmp_path / "log", mapping.run, trained)
    assert file.read_bytes() == alone


def test_three_groups_by_pairs(data: Path, overrides: list[str], tmp_path: Path) -> None:
    add_depth(data, tmp_path / "data")
    groups = json.dumps(LAYOUT.to_list())
    more = (f"data.path={tmp_path / 'data'}", f"groups={groups}", "score.suggest=loss")
    config = configured(overrides, *more)
    train.run(config)
    found = read_maps(mapping.run(config))["heldout"]
    assert found.followers == ("tex", "depth") and found.loss.shape == (2, 6, 4, 4, 3)
    rows, _ = score(config)
    assert {row.schedule.names for row in rows} == {LAYOUT.names}
    suggested = config.output / "score" / "suggested.json"
    train.run(configured(overrides, *more, "train.times=null", f"train.schedule={suggested}", "train.name=suggested"))
    assert (config.output / "train" / "suggested" / "step-00000008").is_dir()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.corrected=false"], "leave corrected and time_distribution alone"),
        (["train.local_times={shape: {density: uniform}}"], "local_times names 'shape'"),
        (["train.times=sometimes"], "train.times"),
        (["sample.schedule=ofset:0.3"], "is no schedule"),
    ],
)
def test_settings_that_do_not_go_together(overrides: list[str], settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        configured(overrides, *settings)


def test_a_map_goes_on_with_another_block_and_takes_each_image_once(
    trained: Experiment, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_maps(mapping.run(trained))["heldout"].loss
    written = 0

    def killed(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise KeyboardInterrupt
        save_tensors(path, tensors)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sys.modules["lwd.stages.map.run"], "save_tensors", killed)
        mapping.run(configured(overrides, "compute.resume=false"))
    assert len(list((trained.output / "map" / "parts").iterdir())) == 1  # four images of the six
    again = read_maps(mapping.run(configured(overrides, "map.block=3")))["heldout"].loss
    torch.testing.assert_close(again, whole, rtol=1e-5, atol=1e-6)  # other batches round otherwise


def test_the_map_of_another_network_leader_or_seed_is_refused(trained: Experiment, overrides: list[str]) -> None:
    mapping.run(trained)
    train.run(configured(overrides, "train.name=other", "seed=1"))
    for changed, said in (
        ("train.name=other", r"a map of something else: weights was '\w+', now '\w+'; run lwd map with"),
        ("leader=tex", "leader was 'sem', now 'tex'"),
        ("seed=1", "seed was 0, now 1"),
    ):
        with pytest.raises(UserError, match=said):
            score(configured(overrides, changed))
    with pytest.raises(UserError, match="leader was 'sem', now 'tex'"):
        probe.sweep(configured(overrides, "sweep.method=map", "leader=tex"))


def test_the_config_that_a_joint_run_leaves_runs_again(trained: Experiment) -> None:
    left = load(Experiment, trained.output / "train" / "learned" / "config.yaml", ["train.steps=9"])
    assert left.train.schedule.kind == "synchronous"
    assert train.run(left).name == "step-00000009"


def test_schedules_of_like_names_have_files_of_their_own() -> None:
    names = file_names(["a/b.json", "a_b.json", "paper.json", "score.json", "offset:0.3", "paper", "a_b_2.json"])
    assert names[4] == "offset_0.3.json" and names[0] == "a_b.json"
    assert len({*names, "score.json", "suggested.json"}) == len(names) + 2


def test_a_network_of_nan_and_a_single_image_are_refused(trained: Experiment, overrides: list[str]) -> None:
    with pytest.raises(UserError, match=r"map\.images"):
        configured(overrides, "map.images=1")
    model, _ = load_checkpoint_model(trained.output / "train" / "learned" / "step-00000008")
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    folder = trained.output / "nan"
    folder.mkdir()
    save_model(model, folder)
    schedule = Schedule.synchronous(trained.layout.names)
    schedule.provenance[TIMES] = "independent"
    schedule.save(folder / "schedule.json")
    with pytest.raises(UserError, match="loss is not finite on heldout images 0 to 3"):
        mapping.run(configured(overrides, f"map.checkpoint={folder}"))
    assert not (trained.output / "map" / "map.json").exists()


def test_a_number_with_two_points_is_no_schedule() -> None:
    with pytest.raises(UserError, match=r"'offset:1\.\.2' is no schedule: synchronous, learned"):
        ScheduleChoice.named("offset:1..2", "schedule")
