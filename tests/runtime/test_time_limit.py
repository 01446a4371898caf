"""`compute.time_limit`: runs leave before it by themselves and keep what they did. All clocks but one are hand-made."""

import itertools
import time

import pytest
import typer

from lwd.config import parse
from lwd.console import one_line_errors
from lwd.errors import Preempted, UserError
from lwd.files import checksum
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.jobs import run_jobs
from lwd.runtime.preemption import InTime, Preemption, TimeLimit
from lwd.runtime.processes import Processes
from lwd.stages import encode, map, sample, train
from lwd.training.logging import read_log
from ranks import in_two_processes
from traces import per_step


def ticking(limit):
    """A limit that is up when it has been asked about ``limit`` times before."""
    ticks = itertools.count()
    return TimeLimit(limit, lambda: next(ticks))


@pytest.fixture
def limited(monkeypatch):
    """Processes get a clock that ticks when it is looked at."""
    monkeypatch.setattr("lwd.runtime.processes.TimeLimit", lambda s: TimeLimit() if s is None else ticking(s))

    def with_limit(config, seconds, **more):
        return config.model_copy(update={"compute": config.compute.model_copy(update={"time_limit": seconds}), **more})

    return with_limit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3h50m", 13_800), ("90s", 90), ("1d12h30s", 129_630), ("2h", 7200), (45, 45), (1.5, 1.5), (None, None)],
)
def test_a_time_in_a_config(text, seconds):
    config = parse(ComputeConfig, {"time_limit": text}, "test")
    assert config.time_limit == seconds and parse(ComputeConfig, config.model_dump(mode="json"), "again") == config


@pytest.mark.parametrize("text", ["", "3", "50m3h", "3h 50m", "h", "-3h", 0, "0s", -1, True, "3:50:00"])
def test_what_is_no_time_is_one_line(text):
    with pytest.raises(UserError, match="time_limit: "):
        parse(ComputeConfig, {"time_limit": text}, "compute.yaml")


def test_steps_until_the_time_is_up():
    with Preemption(limit=ticking(3)) as preemption:
        assert [preemption.requested(step) for step in range(1, 6)] == [False, False, False, True, True]
        assert preemption.why == "the time limit of 3 s is reached"
    assert not TimeLimit().up and TimeLimit(1e9).up is False and TimeLimit(1e-9).up  # of this process's own age


def test_pieces_until_the_time_is_up_and_at_least_one():
    def done(limit, pieces):
        in_time = InTime(limit, lambda here: here)
        return list(in_time.of(pieces)), in_time

    assert done(TimeLimit(), [1, 2, 3])[0] == [1, 2, 3]
    some, in_time = done(ticking(0), [1, 2, 3])
    assert some == [1]
    with pytest.raises(Preempted, match="folder: the time limit of 0 s is reached, what is finished is kept"):
        in_time.end("folder")
    all_of_them, in_time = done(ticking(2), [1, 2, 3])
    assert all_of_them == [1, 2, 3]
    in_time.end("folder")  # nothing was left
    with pytest.raises(Preempted):  # another process left some
        InTime(ticking(9), lambda here: True).end("folder")


def _one_is_late():
    import os

    processes = Processes(ComputeConfig(device="cpu", time_limit=1e9))
    late = TimeLimit(0.0, lambda: 1.0) if os.environ["RANK"] == "1" else TimeLimit()
    with Preemption(processes.mean, processes.device, late) as preemption:
        step = next(step for step in itertools.count(7) if preemption.requested(step))
    assert step == 10, step
    in_time = InTime(TimeLimit(1.0, lambda: float(os.environ["RANK"])), processes.anywhere)
    done = list(in_time.of(range(3)))
    assert done == ([0] if os.environ["RANK"] == "1" else [0, 1, 2]), done
    try:
        with one_line_errors():
            in_time.end("here")
    except typer.Exit as leaving:
        assert leaving.exit_code == 75
    else:
        raise AssertionError("goes on alone")


def test_all_processes_leave_together_and_one_says_so(tmp_path):
    said = in_two_processes(tmp_path / "said", _one_is_late)
    assert said.count("lwd: here: the time limit") == 1


def test_training_that_was_cut_in_pieces_ends_with_the_same_bytes(experiment, tmp_path, limited):
    schedule = experiment.train.schedule.model_copy(update={"kind": "offset"})
    settings = experiment.train.model_copy(update={"schedule": schedule})
    whole = train.run(experiment.model_copy(update={"output": tmp_path / "whole", "train": settings}))
    config = limited(experiment, 2, output=tmp_path / "cut", train=settings)
    for step in (3, 6):
        with pytest.raises(Preempted, match=f"the time limit of 2 s is reached, saved after step {step}"):
            train.run(config)
    cut = train.run(config)
    assert cut.name == whole.name == "step-00000008"
    for name in ("model/model.safetensors", "ema/model.safetensors", "optimizer.safetensors"):
        assert checksum(whole / name) == checksum(cut / name)
    assert per_step(read_log(whole.parent / "trace.jsonl")) == per_step(read_log(cut.parent / "trace.jsonl"))


def _wait(seconds):
    with Preemption() as preemption:
        while not preemption.requested(1):
            time.sleep(0.01)
    raise AssertionError("`Preemption` raises before")


def test_jobs_side_by_side_are_asked_to_save():
    with pytest.raises(Preempted, match=r"sweep: the time limit of 5 s is reached"):
        run_jobs(_wait, [1, 2], "sweep", processes=2, show=False, limit=ticking(5))


def test_encoding_that_was_cut_at_every_step_piece_and_shard_ends_with_the_same_bytes(experiment, tmp_path, limited):
    """Two steps of a network, one of two others, a PCA, three shards and one. A shard after which there is no other of
    its split does not end a run."""
    settings = experiment.encode.model_dump() | {"shard_images": 600, "encoder_steps": 2, "judge_steps": 1}
    settings |= {"vae_steps": 1, "texture": {"group": "tex", "encoder": "small-vae"}}
    config = experiment.model_copy(
        update={
            "encode": type(experiment.encode).model_validate(settings),
            "data": experiment.data.model_copy(update={"path": None}),
        }
    )
    whole = encode.run.run(config.model_copy(update={"output": tmp_path / "whole"}))
    cut, times = limited(config, 0, output=tmp_path / "cut"), itertools.count()
    while True:
        try:
            data = encode.run.run(cut)
            break
        except Preempted as left:
            assert "data: the time limit" in str(left) and next(times) < 20
    assert next(times) == 2 + 1 + 1 + 1 + 2
    made = {path.relative_to(whole) for path in whole.rglob("*.safetensors")}
    assert {"semantic.safetensors", "judge.safetensors", "texture.safetensors"} < {str(path) for path in made}
    assert not [path for path in data.rglob(".*") if path.is_file() and "unfinished" in path.name]
    for name in made:
        assert checksum(whole / name) == checksum(data / name), name


def test_blocks_of_the_other_stages(experiment, tmp_path, limited):
    times = {"schedule": {"kind": "synchronous"}, "times": {"kind": "independent"}, "steps": 1}
    settings = type(experiment.train).model_validate(experiment.train.model_dump() | times)
    train.run(experiment.model_copy(update={"output": tmp_path, "train": settings}))
    drawn = {"num": 6, "batch": 2, "block": 2, "solver": "euler", "steps": 1, "formats": ("latents",)}
    measured = {"images": 4, "block": 2, "points": 5}
    one = experiment.model_copy(
        update={
            "output": tmp_path,
            "train": settings,
            "sample": experiment.sample.model_copy(update=drawn),
            "map": experiment.map.model_copy(update=measured),
        }
    )
    for stage, parts in ((sample.run, 3), (map.run, 4)):
        for _ in range(parts - 1):
            with pytest.raises(Preempted, match="what is finished is kept"):
                stage(limited(one, 0))
