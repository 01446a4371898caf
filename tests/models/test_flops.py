"""Operation counts against the numbers of SFD's released code and against PyTorch's own counter.

The counter has no formula for the CPU's fused attention, so attention runs as plain products here.
"""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lwd.groups import Group, Layout
from lwd.models import LightningDiT, create, forward_flops, training_flops

SFD = Layout([Group("tex", 32), Group("sem", 16)])

# shared/facts/sfd_params.json: (without, with) the REPA projector, one image, forward, at patch 1 on a 16x16 grid.
RELEASED = {
    "S": (12_120_637_440, 15_476_080_640),
    "B": (46_028_488_704, 49_786_585_088),
    "L": (161_394_196_480, 165_420_728_320),
    "XL": (237_269_827_584, 241_430_577_152),
    "1p0B": (358_323_585_024, 362_886_987_776),
    "1p6B": (566_726_164_480, 571_558_002_688),
}


@pytest.mark.parametrize("size", RELEASED)
def test_counts_are_the_published_ones(size):
    with torch.device("meta"):
        model = create(f"LightningDiT-{size}/1", SFD, 16, 1000, feature_dim=768)
    assert (forward_flops(model), forward_flops(model, project=True)) == RELEASED[size]
    assert training_flops(model, project=True) == 3 * RELEASED[size][1]


@pytest.mark.parametrize("patch", [1, 2])
def test_counts_are_those_of_pytorchs_counter(patch):
    layout = Layout([Group("a", 3), Group("b", 2), Group("c", 4)])
    model = LightningDiT(layout, 8, 10, depth=3, width=48, heads=3, patch_size=patch, feature_dim=7, projector_width=20)
    z, times, labels = torch.randn(2, 9, 8, 8), torch.rand(2, 3), torch.tensor([0, 10])
    for project in (False, True):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            model(z, times, labels, project)
        assert counter.get_total_flops() == 2 * forward_flops(model, project)


def test_the_backward_pass_is_twice_the_forward_but_for_the_ends():
    """Nothing is computed towards z and the times, which PyTorch's counter knows and the MFU convention does not."""
    model = LightningDiT(SFD, 8, 10, depth=4, width=64, heads=4)
    z, times, labels = torch.randn(2, 48, 8, 8), torch.rand(2, 2), torch.tensor([0, 10])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(z, times, labels).square().sum().backward()
    times_in = sum(embedder.mlp[0].weight.numel() for embedder in model.t_embedder.by_group.values())
    ends = 2 * (model.x_embedder.weight.numel() * model.pos_embed.shape[1] + times_in)
    assert counter.get_total_flops() == 2 * (training_flops(model) - ends)
