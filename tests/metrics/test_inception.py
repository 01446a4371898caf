"""The Inception graph against an interpreter of its TensorFlow form, in float64, with padding as TensorFlow defines it.

The published weights are not at hand: random ones of a size that keeps all activations alive stand in.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lwd.metrics import FidInception


def picture(count=1, height=64, width=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def fill(network, seed=0):
    """Random weights under which no map dies out or blows up."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("conv.weight"):
            tensor.normal_(0, math.sqrt(2 / tensor[0].numel()), generator=generator)
        elif name.endswith(("bn.weight", "running_var")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.1, generator=generator)
    return network


@pytest.fixture(scope="module")
def network():
    return fill(FidInception())


# The graph as TensorFlow holds it: convolutions by kernel, channels, stride, padding; its names beside the port's.

SAME, VALID = "SAME", "VALID"


class Graph:
    """Runs the graph in float64 from a state dict, recording the shape of every convolution that it used."""

    def __init__(self, state):
        self.state = {name: tensor.double() for name, tensor in state.items()}
        self.used = {"fc.weight", "fc.bias"}

    def pad(self, x, kernel, stride, padding, value):
        """TensorFlow's SAME: output ceil(in / stride), the odd pixel of padding at the end."""
        if padding == VALID:
            return x
        sides = []
        for size, k in zip(reversed(x.shape[-2:]), reversed(kernel), strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + k - size, 0)
            sides += [total // 2, total - total // 2]
        return F.pad(x, sides, value=value)

    def conv(self, x, name, kernel, channels, stride=1, padding=SAME):
        keys = [
            f"{name}.{part}" for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        ]
        weight, gamma, beta, mean, variance = (self.state[key] for key in keys)
        self.used.update(keys)
        assert weight.shape == (channels, x.shape[1], *kernel), name
        y = F.conv2d(self.pad(x, kernel, stride, padding, 0.0), weight, stride=stride)
        mean, variance, beta, gamma = (z[:, None, None] for z in (mean, variance, beta, gamma))
        return ((y - mean) / torch.sqrt(variance + 0.001) * gamma + beta).clamp(min=0)

    def max(self, x, stride=2, padding=VALID):
        windows = self.pad(x, (3, 3), stride, padding, -torch.inf).unfold(2, 3, stride).unfold(3, 3, stride)
        return windows.amax((4, 5))

    def mean(self, x):
        """TensorFlow's SAME average: over the pixels that are there."""
        windows = self.pad(x, (3, 3), 1, SAME, torch.nan).unfold(2, 3, 1).unfold(3, 3, 1)
        return windows.nanmean((4, 5))

    def chain(self, x, name, *convs):
        """Convolutions after each other: (suffix, kernel, channels)."""
        for suffix, kernel, channels in convs:
            x = self.conv(x, f"{name}.{suffix}", kernel, channels)
        return x

    def run(self, x):
        x = self.conv(x, "Conv2d_1a_3x3", (3, 3), 32, 2, VALID)
        x = self.conv(x, "Conv2d_2a_3x3", (3, 3), 32, 1, VALID)
        x = self.max(self.conv(x, "Conv2d_2b_3x3", (3, 3), 64))
        x = self.conv(x, "Conv2d_3b_1x1", (1, 1), 80, 1, VALID)
        x = self.max(self.conv(x, "Conv2d_4a_3x3", (3, 3), 192, 1, VALID))
        for name, pool in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = self.mixed_35(x, name, pool)
        x = self.reduce_35(x)
        maps = {}
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x, maps[name] = self.mixed_17(x, name, width)
        x = self.reduce_17(x)
        x = self.mixed_8(x, "Mixed_7b", self.mean)
        x = self.mixed_8(x, "Mixed_7c", lambda y: self.max(y, 1, SAME))
        assert x.shape[1:] == (2048, 8, 8)
        pool = x.sum((2, 3)) / 64
        return pool, maps["Mixed_6d"].numpy(), pool @ self.state["fc.weight"].T

    def mixed_35(self, x, name, pool):
        return torch.cat(
            [
                self.chain(x, name, ("branch1x1", (1, 1), 64)),
                self.chain(x, name, ("branch5x5_1", (1, 1), 48), ("branch5x5_2", (5, 5), 64)),
                self.chain(
                    x,
                    name,
                    ("branch3x3dbl_1", (1, 1), 64),
                    ("branch3x3dbl_2", (3, 3), 96),
                    ("branch3x3dbl_3", (3, 3), 96),
                ),
                self.chain(self.mean(x), name, ("branch_pool", (1, 1), pool)),
            ],
            1,
        )

    def reduce_35(self, x):
        double = self.chain(x, "Mixed_6a", ("branch3x3dbl_1", (1, 1), 64), ("branch3x3dbl_2", (3, 3), 96))
        return torch.cat(
            [
                self.conv(x, "Mixed_6a.branch3x3", (3, 3), 384, 2, VALID),
                self.conv(double, "Mixed_6a.branch3x3dbl_3", (3, 3), 96, 2, VALID),
                self.max(x),
            ],
            1,
        )

    def mixed_17(self, x, name, c):
        first = self.chain(x, name, ("branch1x1", (1, 1), 192))
        seven = self.chain(
            x, name, ("branch7x7_1", (1, 1), c), ("branch7x7_2", (1, 7), c), ("branch7x7_3", (7, 1), 192)
        )
        down_right = [("1", (1, 1), c), ("2", (7, 1), c), ("3", (1, 7), c), ("4", (7, 1), c), ("5", (1, 7), 192)]
        double = self.chain(x, name, *((f"branch7x7dbl_{n}", kernel, width) for n, kernel, width in down_right))
        pool = self.chain(self.mean(x), name, ("branch_pool", (1, 1), 192))
        return torch.cat([first, seven, double, pool], 1), first

    def reduce_17(self, x):
        three = self.chain(x, "Mixed_7a", ("branch3x3_1", (1, 1), 192))
        seven = self.chain(
            x,
            "Mixed_7a",
            ("branch7x7x3_1", (1, 1), 192),
            ("branch7x7x3_2", (1, 7), 192),
            ("branch7x7x3_3", (7, 1), 192),
        )
        return torch.cat(
            [
                self.conv(three, "Mixed_7a.branch3x3_2", (3, 3), 320, 2, VALID),
                self.conv(seven, "Mixed_7a.branch7x7x3_4", (3, 3), 192, 2, VALID),
                self.max(x),
            ],
            1,
        )

    def mixed_8(self, x, name, pool):
        three = self.chain(x, name, ("branch3x3_1", (1, 1), 384))
        double = self.chain(x, name, ("branch3x3dbl_1", (1, 1), 448), ("branch3x3dbl_2", (3, 3), 384))
        return torch.cat(
            [
                self.chain(x, name, ("branch1x1", (1, 1), 320)),
                self.chain(three, name, ("branch3x3_2a", (1, 3), 384)),
                self.chain(three, name, ("branch3x3_2b", (3, 1), 384)),
                self.chain(double, name, ("branch3x3dbl_3a", (1, 3), 384)),
                self.chain(double, name, ("branch3x3dbl_3b", (3, 1), 384)),
                self.chain(pool(x), name, ("branch_pool", (1, 1), 192)),
            ],
            1,
        )


@pytest.fixture(scope="module")
def graph(network):
    return Graph(network.state_dict())


@pytest.fixture(scope="module")
def expected(graph):
    """The graph on two 299x299 pictures, which no resize touches."""
    return graph.run((picture(2, 299, 299).double() - 128) * 0.0078125)


def assert_close(found, expected):
    # Float32 through 20 layers in a row: a few 1e-6 of the largest value.
    expected = np.asarray(expected)
    np.testing.assert_allclose(found.double(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected).std() > 1e-2 * np.abs(expected).max()  # a map that died out would prove nothing


def test_the_graph(network, expected):
    pool, spatial, logits = network(picture(2, 299, 299))
    assert_close(pool, expected[0])
    assert_close(logits, expected[2])
    # ADM: `mixed_6/conv:0`[..., :7] of an NHWC map, reshaped to (N, -1).
    assert_close(spatial, expected[1].transpose(0, 2, 3, 1)[..., :7].reshape(2, -1))
    assert (pool.shape, spatial.shape, logits.shape) == ((2, 2048), (2, 2023), (2, 1008))
    assert {pool.dtype, spatial.dtype, logits.dtype} == {torch.float32}


def test_names_and_shapes(network, graph, expected):
    """The graph's convolutions (whose shapes it asserted), their normalisations, and the classes."""
    state = network.state_dict()
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert state.keys() - counters == graph.used
    assert len(counters) == 94
    assert state["fc.weight"].shape == (1008, 2048)
    assert state["fc.bias"].shape == (1008,)
    # Keras's Inception-v3 without its top is documented to have 21 802 784 weights, 3 * 17 216 of them normalisation
    # (no gamma); the convolutions are those.
    convolutions = sum(tensor.numel() for name, tensor in state.items() if name.endswith("conv.weight"))
    assert convolutions == 21_802_784 - 3 * 17_216
    assert sum(tensor.numel() for name, tensor in state.items() if name.endswith("bn.weight")) == 17_216


def test_resized_then_scaled(network, graph):
    """A 2x2 picture: TensorFlow's resize, by hand, feeds the graph."""
    image = torch.tensor([[[[0, 200], [100, 255]]]], dtype=torch.uint8).expand(1, 3, 2, 2)
    place = np.minimum(np.arange(299) * (np.float32(2) / np.float32(299)), 1.0)  # beyond the last pixel: its value
    rows = np.outer(1 - place, [0, 200]) + np.outer(place, [100, 255])
    resized = np.outer(rows[:, 0], 1 - place) + np.outer(rows[:, 1], place)
    x = (torch.from_numpy(resized).expand(1, 3, 299, 299) - 128) / 128
    assert_close(network(image).pool, graph.run(x)[0])


def test_an_image_s_features_do_not_depend_on_its_batch(network):
    images = picture(3)
    together = network(images)
    for n in range(3):
        for one, batch in zip(network(images[n : n + 1]), together, strict=True):
            # Another batch size may take another convolution kernel: rounding of float32.
            torch.testing.assert_close(one[0], batch[n], rtol=0, atol=3e-6 * float(batch.abs().max()))


def test_logits_have_no_bias(network):
    features = network(picture())
    torch.testing.assert_close(features.logits, features.pool @ network.fc.weight.T, rtol=1e-5, atol=1e-6)
    assert float(network.fc.bias.abs().max()) > 0.1


def test_always_in_evaluation_mode_full_precision_and_without_gradients(network):
    images = picture()
    expected = network(images)
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        again = network(images)
    for one, two in zip(expected, again, strict=True):
        assert torch.equal(one, two)
        assert not two.requires_grad
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_other_memory_layouts(network):
    images = picture(2)
    channels_last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # as from an npz of NHWC images
    for one, two in zip(network(images), network(channels_last), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(1, 3, 8, 8), "uint8 in .0, 255., got torch.float32"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "got torch.int64"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), r"\(N, 3, height, width\), got \(1, 8, 8, 3\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"got \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), r"got \(0, 3, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8, dtype=torch.uint8), r"got \(1, 3, 0, 8\)"),
    ],
)
def test_images_of_another_kind(network, images, words):
    with pytest.raises(ValueError, match=words):
        network(images)
