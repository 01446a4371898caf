"""Guidance: the algebra group by group, intervals, and what it costs."""

import pytest
import torch

from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.models import create
from lwd.sample import AutoGuidance, ClassifierFreeGuidance, CombinedGuidance, Interval, Ramp

LAYOUT = Layout([Group("tex", 2), Group("sem", 1), Group("dep", 3)])
NULL = 7


def plain(gain):
    """A "network": a fixed function of everything it is given."""

    def model(z, times, labels):
        return torch.sin(gain * z + LAYOUT.expand(times, z)) * (1 + labels[:, None, None, None])

    return model


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 6, 2, 2, generator=generator, dtype=torch.float64)
    return z, torch.rand(5, 3, generator=generator, dtype=torch.float64), torch.arange(5)


class Counting:
    """Counts calls and rows."""

    def __init__(self, model):
        self.model, self.calls, self.rows = model, 0, 0

    def __call__(self, z, times, labels):
        self.calls += 1
        self.rows += len(z)
        return self.model(z, times, labels)


KINDS = ["auto", "classifier_free"]


def guided(kind, scale, interval=None):
    """The guided network, and functions that give its weak and main predictions by themselves."""
    main = plain(1.3)
    if kind == "auto":
        weak = plain(0.4)
        return AutoGuidance(weak, scale, interval).wrap(main, LAYOUT), weak, main

    def null(z, times, labels):
        return main(z, times, torch.full_like(labels, NULL))

    return ClassifierFreeGuidance(scale, NULL, interval).wrap(main, LAYOUT), null, main


# v_weak + w (v_main - v_weak) in float64, |v| up to 8 and w up to 4: a few roundings of 2^-53 each.
EXACT = {"rtol": 0, "atol": 1e-13}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 4.0])
def test_one_scale_extrapolates_from_weak_through_main(kind, scale, inputs):
    both, weak, main = guided(kind, scale)
    expected = weak(*inputs) + scale * (main(*inputs) - weak(*inputs))
    torch.testing.assert_close(both(*inputs), expected, **EXACT)
    assert (expected - main(*inputs)).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_each_group_has_its_own_scale(kind, inputs):
    scales = {"dep": 3.0, "tex": 1.5, "sem": 1.0}  # named, so that the order does not matter
    both, weak, main = guided(kind, scales)
    v, low, high = (LAYOUT.split(f(*inputs)) for f in (both, weak, main))
    for name, scale in scales.items():
        torch.testing.assert_close(v[name], low[name] + scale * (high[name] - low[name]), **EXACT)
    torch.testing.assert_close(v["sem"], high["sem"], **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_is_closed_and_in_its_group_s_local_time(kind, inputs):
    z, times, labels = inputs
    times[:, 1] = torch.tensor([0.2, 0.2 - 1e-6, 0.45, 0.7, 0.7 + 1e-6])
    both, weak, main = guided(kind, 2.0, Interval("sem", 0.2, 0.7))
    v, low, high = (f(z, times, labels) for f in (both, weak, main))
    inside = torch.tensor([True, False, True, True, False])
    torch.testing.assert_close(v[inside], (low + 2 * (high - low))[inside], **EXACT)
    torch.testing.assert_close(v[~inside], high[~inside], **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interval_edges_hold_in_single_precision_too(dtype, inputs):
    z, times, labels = (x.to(dtype) if x.is_floating_point() else x for x in inputs)
    times[:, 0] = 0.3  # not a binary fraction: rounds differently in float32 and float64
    both, _, main = guided("auto", 2.0, Interval("tex", 0.3, 0.3))
    assert (both(z, times, labels) - main(z, times, labels)).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_interval_is_all_of_it(kind, inputs):
    z, times, labels = inputs
    times[0], times[1] = 0.0, 1.0
    everywhere, _, _ = guided(kind, 2.0)
    interval, _, _ = guided(kind, 2.0, Interval("dep"))
    assert torch.equal(everywhere(z, times, labels), interval(z, times, labels))


def test_classifier_free_guidance_is_two_separate_calls_in_one(inputs):
    z, times, labels = inputs
    model = Counting(plain(1.3))
    both = ClassifierFreeGuidance(2.5, NULL).wrap(model, LAYOUT)(z, times, labels)
    assert (model.calls, model.rows) == (1, 10)
    main, weak = model.model(z, times, labels), model.model(z, times, torch.full_like(labels, NULL))
    torch.testing.assert_close(both, weak + 2.5 * (main - weak), **EXACT)


def test_autoguidance_calls_each_network_once(inputs):
    weak, main = Counting(plain(0.4)), Counting(plain(1.3))
    AutoGuidance(weak, 2.0).wrap(main, LAYOUT)(*inputs)
    assert (weak.calls, main.calls, weak.rows, main.rows) == (1, 1, 5, 5)


@pytest.mark.parametrize("scale", [1, 1.0, {"tex": 1.0, "sem": 1.0, "dep": 1.0}])
def test_scale_one_is_the_very_same_network(scale):
    model = plain(1.0)
    assert AutoGuidance(plain(0.5), scale).wrap(model, LAYOUT) is model
    assert ClassifierFreeGuidance(scale, NULL, Interval("sem", 0.1, 0.2)).wrap(model, LAYOUT) is model


@pytest.mark.parametrize("kind", KINDS)
def test_output_keeps_the_dtype(kind, inputs):
    z, times, labels = inputs
    both, _, _ = guided(kind, {"tex": 2.0, "sem": 1.0, "dep": 1.3}, Interval("tex", 0.5))
    assert both(z.float(), times.float(), labels).dtype == torch.float32


# Outside of the interval, and both kinds at once


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_scale_is_one_the_network_s_answer_is_kept_bit_for_bit(kind, inputs):
    z, times, labels = (x.float() if x.is_floating_point() else x for x in inputs)
    times[:, 1] = torch.tensor([0.1, 0.5, 0.9, 0.5, 0.1])
    both, _, main = guided(kind, {"tex": 3.0, "sem": 1.0, "dep": 1.7}, Interval("sem", 0.2, 0.7))
    v, plain_v = both(z, times, labels), main(z, times, labels)
    outside = torch.tensor([0, 2, 4])
    assert torch.equal(v[outside], plain_v[outside]) and torch.equal(v[:, 2:3], plain_v[:, 2:3])
    assert (v[[1, 3]] - plain_v[[1, 3]]).abs().amax() > 0.1


def test_on_a_cpu_a_reference_is_asked_only_where_it_counts(inputs):
    z, times, labels = inputs
    times[:, 1] = torch.tensor([0.1, 0.5, 0.9, 0.5, 0.1])
    weak, main = Counting(plain(0.4)), Counting(plain(1.3))
    interval = Interval("sem", 0.2, 0.7)
    CombinedGuidance(AutoGuidance(weak, 2.0, interval), ClassifierFreeGuidance(1.5, NULL, interval)).wrap(main, LAYOUT)(
        z, times, labels
    )
    assert (weak.calls, weak.rows, main.calls, main.rows) == (1, 2, 1, 7)
    times[:, 1] = 0.9
    AutoGuidance(weak, 2.0, interval).wrap(main, LAYOUT)(z, times, labels)
    assert (weak.calls, main.calls, main.rows) == (1, 2, 12)


def test_both_kinds_add_up(inputs):
    main, weak = plain(1.3), plain(0.4)
    auto, free = {"tex": 2.0, "sem": 1.0, "dep": 0.5}, {"tex": 1.5, "sem": 4.0, "dep": 1.0}
    both = CombinedGuidance(AutoGuidance(weak, auto), ClassifierFreeGuidance(free, NULL)).wrap(main, LAYOUT)
    v, w, n = (
        LAYOUT.split(x) for x in (main(*inputs), weak(*inputs), main(*inputs[:2], torch.full_like(inputs[2], NULL)))
    )
    for name, out in LAYOUT.split(both(*inputs)).items():
        expected = v[name] + (auto[name] - 1) * (v[name] - w[name]) + (free[name] - 1) * (v[name] - n[name])
        torch.testing.assert_close(out, expected, **EXACT)


def test_both_kinds_with_one_of_them_off_are_the_other(inputs):
    main, weak = plain(1.3), plain(0.4)
    auto, free = AutoGuidance(weak, 2.0), ClassifierFreeGuidance(2.5, NULL)
    off = CombinedGuidance(auto, ClassifierFreeGuidance(1.0, NULL)).wrap(main, LAYOUT)
    assert torch.equal(off(*inputs), auto.wrap(main, LAYOUT)(*inputs))
    off = CombinedGuidance(AutoGuidance(weak, 1), free).wrap(main, LAYOUT)
    assert torch.equal(off(*inputs), free.wrap(main, LAYOUT)(*inputs))
    assert CombinedGuidance(AutoGuidance(weak, 1), ClassifierFreeGuidance(1, NULL)).wrap(main, LAYOUT) is main


# Scales that change


@pytest.mark.parametrize("kind", KINDS)
def test_ramps_over_global_and_local_time(kind, inputs):
    z, times, labels = inputs
    tau = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    scale = {"tex": Ramp(1.0, 3.0), "sem": Ramp(2.0, 0.0, "cosine"), "dep": Ramp(4.0, 2.0, over="sem")}
    both, weak, main = guided(kind, scale)
    expected = {
        "tex": torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0], dtype=torch.float64),
        "sem": torch.tensor([2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5, 0.0], dtype=torch.float64),
        "dep": 4 - 2 * times[:, 1],
    }
    v, low, high = (LAYOUT.split(x) for x in (both(z, times, labels, tau), weak(*inputs), main(*inputs)))
    for name, w in expected.items():
        torch.testing.assert_close(v[name], low[name] + w[:, None, None, None] * (high[name] - low[name]), **EXACT)


def test_a_ramp_over_global_time_does_without_tau_only_by_saying_so(inputs):
    with pytest.raises(ValueError, match="needs tau"):
        guided("auto", Ramp(1.0, 2.0))[0](*inputs)
    assert guided("auto", Ramp(1.0, 1.0, "cosine"))[0](*inputs) is not None, "a ramp that stays at 1 guides nowhere"


# What does not fit


def network(layout=LAYOUT, classes=10, size=2):
    return create("LightningDiT-Mini/1", layout, size, classes)


@pytest.mark.parametrize(
    ("weak", "message"),
    [
        (lambda: network(Layout([Group("tex", 4), Group("dep", 2)])), "layout is"),
        (lambda: network(classes=9), "num_classes is 9"),
        (lambda: network(size=4), "input_size is 4"),
    ],
)
def test_a_weak_model_of_other_inputs(weak, message):
    with pytest.raises(UserError, match=message) as caught:
        AutoGuidance(weak(), 2.0).wrap(network(), LAYOUT)
    assert "\n" not in str(caught.value)
    AutoGuidance(network(), 2.0).wrap(network(), LAYOUT)


def test_the_null_label_is_the_model_s():
    seen = []
    model = network().eval()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2].tolist()))
    z, times = torch.zeros(2, 6, 2, 2), torch.zeros(2, 3)
    with torch.no_grad():
        ClassifierFreeGuidance(2.0).wrap(model, LAYOUT)(z, times, torch.tensor([3, 4]))
    assert seen == [[3, 4, 10, 10]]
    with pytest.raises(UserError, match="null 1000 is not the model's null_label, which is 10"):
        ClassifierFreeGuidance(2.0, 1000).wrap(model, LAYOUT)
    with pytest.raises(UserError, match="no null_label"):
        ClassifierFreeGuidance(2.0).wrap(plain(1.0), LAYOUT)


@pytest.mark.parametrize(
    ("scale", "interval"),
    [({"tex": 2.0}, None), (2.0, Interval("depth")), (Ramp(1.0, 2.0, over="depth"), None)],
)
def test_groups_that_are_not_there(scale, interval):
    with pytest.raises(UserError, match="group") as caught:
        guided("auto", scale, interval)
    assert "\n" not in str(caught.value)


def test_a_scale_close_to_one_survives_bf16():
    """w - 1 is taken before rounding: 1.003 in bf16 is 1."""
    layout = Layout([Group("a", 2)])

    def model(z, times, labels):
        return torch.where(labels[:, None, None, None] == 5, 1.0, 3.0).expand_as(z).to(torch.bfloat16)

    z = torch.zeros(2, 2, 1, 1)
    guided = ClassifierFreeGuidance(1.03, 5).wrap(model, layout)(z, torch.full((2, 1), 0.5), torch.zeros(2).long())
    assert guided.dtype == torch.bfloat16
    assert torch.allclose(guided.float(), torch.tensor(3.06), atol=2**-7)
    assert not torch.equal(guided.float(), torch.full_like(z, 3.0))
