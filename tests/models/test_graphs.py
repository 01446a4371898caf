"""What a compiler is given: whole steps are one graph, batch sizes take few of them, and the forward pass exports."""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from lwd.data.batches import StepBatch
from lwd.data.shards import Batch
from lwd.groups import Group, Layout
from lwd.models import LightningDiT
from lwd.ode import Integration
from lwd.ode.plan import make_plan
from lwd.ode.slots import Slots
from lwd.sample import AutoGuidance, make_flow
from lwd.schedules import Schedule
from lwd.stages.train import TrainSettings
from lwd.stages.train.run import DenoiserObjective

LAYOUT = Layout([Group("a", 3), Group("b", 2)])
META = torch.device("meta")
quick = partial(torch.compile, backend="eager")  # the graphs matter here, not what is made of them


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def network(width=16, feature_dim=None):
    torch.manual_seed(0)
    model = LightningDiT(LAYOUT, 2, 5, 1, width, 2, feature_dim=feature_dim, repa_block=1, projector_width=8)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    return model


def inputs(batch):
    return torch.randn(batch, 5, 2, 2), torch.rand(batch, 2), torch.arange(batch) % 6


def test_the_loss_of_a_training_step_is_one_graph():
    """On meta tensors, which have no values: nothing depends on them either."""
    objective = DenoiserObjective(
        network(feature_dim=4), LAYOUT, Schedule.offset(LAYOUT.names, "b"), TrainSettings(), 0
    ).to(META)
    labels = torch.zeros(3, dtype=torch.int64, device=META)
    images, features = torch.empty(3, 5, 2, 2, device=META), torch.empty(3, 4, 2, 2, device=META)
    quick(objective, fullgraph=True)(StepBatch(Batch(images, labels, features), labels), 0)
    assert counters["stats"]["unique_graphs"] == 1


def test_a_tick_of_the_sampler_is_one_graph():
    schedule, numbers = Schedule.offset(LAYOUT.names, "b"), torch.arange(3)
    guidance = AutoGuidance(network(width=8).to(META), 1.5)
    flow = make_flow(network().to(META), schedule, LAYOUT, numbers, numbers, (5, 2, 2), guidance)
    slots = Slots(make_plan(Integration(), schedule, META), flow.noise(numbers), numbers.to(META))
    assert flow.condition_on_device.device == META

    @torch.no_grad()
    def tick():
        z, tau = slots.ask()
        slots.advance(z, flow.velocity(z, tau, slots.index))

    quick(tick, fullgraph=True)()
    assert counters["stats"]["unique_graphs"] == 1


@torch._dynamo.config.patch(recompile_limit=2)  # of 8, for less to do: a third would be an error
def test_few_variants_serve_all_batch_sizes_and_more_are_allowed_than_pytorch_does(monkeypatch):
    """One for the first batch size, one for all others; with gradients and without."""
    monkeypatch.setattr(torch, "compile", quick)
    model = network()
    model.compile_blocks()

    def variants(*batches):
        before = counters["stats"]["unique_graphs"]
        for batch in batches:
            out = model(*inputs(batch))
            if out.requires_grad:
                out.sum().backward()
        return counters["stats"]["unique_graphs"] - before

    assert variants(8, 8, 3, 7) == 2, "training in micro-batches, of which the last is a part"
    with torch.no_grad():
        assert variants(8, 4, 2, 6) == 1, "sampling as the batch shrinks, and held-out data"
    assert not counters["graph_break"]


def test_the_forward_pass_exports_with_any_batch():
    model = network().eval()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(model, inputs(4), dynamic_shapes=({0: batch},) * 3).module()
    for count in (2, 7):
        given = inputs(count)
        assert torch.equal(program(*given), model(*given)), "the same operations in the same order"
