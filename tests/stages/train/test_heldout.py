"""The held-out loss against a loop, whatever the batch or the number of processes; logged where it is due."""

from types import SimpleNamespace

import pytest
import torch

from lwd.errors import UserError
from lwd.flow import group_factors
from lwd.models import LightningDiT
from lwd.runtime.seeding import Stream, normal, uniform
from lwd.schedules import Schedule
from lwd.stages import train
from lwd.stages.train.heldout import HeldOut
from lwd.training.logging import read_log

KEYS = ("heldout_corrected", "heldout_unweighted")


def process(rank=0, world=1):
    return SimpleNamespace(rank=rank, world=world, device=torch.device("cpu"), dtype=torch.float32, mean=lambda t: t)


@pytest.fixture
def model(experiment):
    """Random weights in every layer: as initialised, a network answers 0."""
    torch.manual_seed(0)
    model = experiment.model.build(experiment.layout, (4, 4)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter))
    return model


def heldout(experiment, engine, batch=64, seed=0):
    schedule = Schedule.offset(experiment.layout.names, experiment.leader)
    return HeldOut(experiment.shards("heldout", features=False), schedule, "mean_flat", batch, seed, engine)


def values(measured):
    return [measured[key].item() for key in KEYS]


def test_both_weightings_against_a_loop(experiment, model):
    """One image at a time, from the equations, in float64 around the float32 network."""
    held = heldout(experiment, process())
    shards, layout, expected = held.shards, experiment.layout, torch.zeros(2, dtype=torch.float64)
    factors = torch.tensor(group_factors(layout, "mean_flat"), dtype=torch.float64)
    for i in range(len(shards)):
        place = torch.tensor([i])
        batch = shards.read(place)
        tau = uniform(Stream.HELDOUT, 0, 0, place)
        x0 = normal(Stream.HELDOUT, 0, 1, place, tuple(batch.x1.shape[1:]))
        times, rates = held.schedule(tau)
        t = layout.expand(times, x0)
        with torch.no_grad():
            v = model((1 - t) * x0 + t * batch.x1, times, batch.labels)
        losses = layout.group_means((v - (batch.x1 - x0)).double().square())[0]
        expected += torch.stack([(factors * rates[0] * losses).sum(), (factors * losses).sum()]) / len(shards)
    # float32 in batches against one by one
    assert values(held.measure(model)) == pytest.approx(expected.tolist(), rel=1e-5)
    assert expected[0] != pytest.approx(expected[1].item(), rel=1e-4)  # the two are told apart


def test_neither_batch_nor_processes_change_it_but_the_seed_does(experiment, model):
    whole = values(heldout(experiment, process()).measure(model))
    assert values(heldout(experiment, process()).measure(model)) == whole
    assert values(heldout(experiment, process(), batch=7).measure(model)) == pytest.approx(whole, rel=1e-5)  # float32
    parts = [heldout(experiment, process(rank, 3)).measure(model) for rank in range(3)]
    assert values({key: sum(part[key] for part in parts) / 3 for key in KEYS}) == pytest.approx(whole, rel=1e-5)
    assert values(heldout(experiment, process(), seed=1).measure(model)) != pytest.approx(whole, rel=1e-4)


def test_all_processes_run_the_network_equally_often(experiment, model):
    """One without an image left joins in: a sharded network runs on all or on none."""
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    whole, counts, parts = values(heldout(experiment, process()).measure(model)), [], []
    images = len(heldout(experiment, process()).shards)
    batch = images // 2  # the first of two has one image more
    assert images % 2
    for rank in range(2):
        calls.clear()
        parts.append(heldout(experiment, process(rank, 2), batch=batch).measure(model))
        counts.append(len(calls))
    assert counts == [2, 2]
    assert values({key: sum(part[key] for part in parts) / 2 for key in KEYS}) == pytest.approx(whole, rel=1e-5)


def settings(experiment, **changes):
    schedule = experiment.train.schedule.model_copy(update={"kind": "offset"})
    return experiment.model_copy(
        update={"train": experiment.train.model_copy(update={"schedule": schedule, **changes})}
    )


def test_it_is_logged_every_n_steps_and_at_the_end_on_the_average(experiment):
    end = train.run(settings(experiment, heldout_every=3))
    lines = read_log(end.parent / "trace.jsonl")
    assert [line["step"] for line in lines if KEYS[0] in line] == [2, 5, 7]
    assert [line["step"] for line in lines if KEYS[1] in line] == [2, 5, 7]
    average = LightningDiT.from_pretrained(end / "ema")
    live = LightningDiT.from_pretrained(end / "model")
    held = heldout(experiment, process(), experiment.train.batch)
    logged = [lines[-1][key] for key in KEYS]
    assert logged == pytest.approx(values(held.measure(average)), rel=1e-6)  # logged in float32
    assert logged != pytest.approx(values(held.measure(live)), rel=1e-6)


def test_it_may_be_turned_on_when_a_run_is_gone_on_with(experiment):
    train.run(settings(experiment, steps=4))
    end = train.run(settings(experiment, heldout_every=2))
    assert [line["step"] for line in read_log(end.parent / "trace.jsonl") if KEYS[0] in line] == [5, 7]


def test_without_heldout_data_it_says_so(experiment, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(experiment.data_path / "train")
    data = experiment.data.model_copy(update={"path": tmp_path / "data"})
    with pytest.raises(UserError, match="heldout"):
        train.run(settings(experiment.model_copy(update={"data": data}), heldout_every=2))
