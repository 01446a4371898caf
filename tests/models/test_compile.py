"""Blocks compiled or recomputed give the same function and gradients; a compiled block is one graph."""

import copy

import torch

from lwd.groups import Group, Layout
from lwd.models import LightningDiT

LAYOUT = Layout([Group("a", 3), Group("b", 2)])


def network():
    torch.manual_seed(0)
    model = LightningDiT(LAYOUT, 4, 5, depth=3, width=32, heads=2, feature_dim=6, projector_width=8)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    return model


def outputs_and_gradients(model, batch=3):
    """v, projection, and the gradients of all parameters, z and times."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(batch, 5, 4, 4, generator=generator).requires_grad_()
    times = torch.rand(batch, 2, generator=generator).requires_grad_()
    model.zero_grad()
    v, projected = model(z, times, torch.arange(batch) % 6, project=True)
    (v.square().sum() + projected.sum()).backward()
    return [v, projected, z.grad, times.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


def assert_close(ours, expected):
    # float32: other orders of summation in a few hundred operations; 1e-4 of each tensor's own size is 1000 roundings.
    for a, b in zip(ours, expected, strict=True):
        assert float((a - b).detach().norm() / b.detach().norm()) < 1e-4


def test_recomputation_changes_nothing_and_keeps_less():
    eager, frugal = network(), network()
    frugal.checkpoint_blocks = True
    for a, b in zip(outputs_and_gradients(frugal), outputs_and_gradients(eager), strict=True):
        assert torch.equal(a, b), "the same operations in the same order"
    assert saved_bytes(frugal) < 0.5 * saved_bytes(eager)


def saved_bytes(model):
    """How much autograd keeps for the backward pass."""
    total = 0

    def pack(tensor):
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.randn(8, 5, 4, 4), torch.rand(8, 2), torch.zeros(8, dtype=torch.long))
    return total


def test_compiled_is_eager():
    torch._dynamo.reset()
    expected = outputs_and_gradients(network())
    counters = torch._dynamo.utils.counters
    counters.clear()
    for frugal in (False, True):
        model = network()
        model.checkpoint_blocks = frugal
        model.compile_blocks()
        assert_close(outputs_and_gradients(model), expected)
    assert not counters["graph_break"]
    # Regional: three blocks of one shape share one graph, recomputed or not.
    assert counters["stats"]["unique_graphs"] == 1


def test_a_compiled_network_is_copied_and_saved_like_any(tmp_path):
    model = network()
    model.compile_blocks()
    copy.deepcopy(model).save_pretrained(tmp_path)
    read = LightningDiT.from_pretrained(tmp_path)
    expected = network().state_dict()
    assert list(read.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read.state_dict().items())
