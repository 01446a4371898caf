"""LwdPipeline against lwd.sample and Euler steps by hand, on the real architectures with random weights.

A small LightningDiT (2 blocks) on the layout of the paper's groups, 2 x 2 latents, and the whole f16d32 VAE.
"""

from __future__ import annotations

import importlib
import io
import json
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, DiffusionPipeline
from torch import nn

from lwd.data.stats import save_stats
from lwd.encoders.vae import SDVAE
from lwd.errors import UserError
from lwd.files import checksum, write_json
from lwd.groups import Group, Layout
from lwd.images.sheets import to_uint8
from lwd.models import LightningDiT, save_model
from lwd.pipeline import LwdPipeline, LwdScheduler, LwdTransformer
from lwd.runtime.seeding import Stream, normal
from lwd.sample import AutoGuidance, ClassifierFreeGuidance, generate
from lwd.schedules import PolynomialCurve, Schedule

LAYOUT = Layout([Group("tex", 32), Group("sem", 16)])  # not in the alphabet's order, by which diffusers sorts JSON
CLASSES, GRID = 10, 2


def network(seed, depth=2, num_classes=CLASSES, layout=LAYOUT):
    model = LightningDiT(layout, GRID, num_classes, depth=depth, width=32, heads=2)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():  # as initialised its output would be 0
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.15, generator=generator)
    return model.eval()


def learned():
    schedule = Schedule.learnable(LAYOUT.names, leader="sem")
    schedule["tex"].rho.data = torch.tensor([-1.0, 0.5, 0.2, -2.0, 1.0])
    return schedule.requires_grad_(False)


def scheduler(schedule=None):
    generator = torch.Generator().manual_seed(5)
    mean, std = torch.randn(48, generator=generator), torch.rand(48, generator=generator) + 0.5
    return LwdScheduler.from_schedule(schedule or learned(), mean, std)


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def vae():
    return SDVAE.random(0)


@pytest.fixture(scope="module")
def networks():
    """The main and the weak one."""
    return network(1), network(2, depth=1)


@pytest.fixture
def pipe(vae, networks):
    return quiet(LwdPipeline(LwdTransformer.from_network(networks[0]), vae.model, scheduler()))


@pytest.fixture
def guided(vae, networks):
    main, weak = (LwdTransformer.from_network(each) for each in networks)
    return quiet(LwdPipeline(main, vae.model, scheduler(), weak))


def latents_of(pipe, *args, **kwargs):
    return pipe(*args, output_type="latent", return_dict=False, **kwargs)[0]


def test_images_are_those_of_the_sampler_and_the_decoder(pipe, vae, networks):
    labels, seeds = torch.tensor([3, 3, 9, 9]), torch.tensor([5, 6, 2**62 + 1, -4])
    result = pipe([3, 9], num_images_per_class=2, seeds=seeds)
    expected = generate(networks[0], learned(), LAYOUT, labels, seeds, networks[0].shape).latents  # dopri5
    assert torch.equal(latents_of(pipe, labels, seeds=seeds), expected)
    mean, std = (torch.tensor(pipe.scheduler.config[key]) for key in ("latents_mean", "latents_std"))
    tex = (expected * std.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1))[:, :32]
    images = vae.decode(tex)
    assert images.std() > 0.01
    for image, pixels in zip(result.images, to_uint8(images).permute(0, 2, 3, 1).numpy(), strict=True):
        assert image.size == (32, 32)
        # x * std + mean may round otherwise as two operations: a value in the middle then falls to the other side
        assert np.abs(np.asarray(image).astype(int) - pixels).max() <= 1


def test_another_autoencoder_decodes_by_its_scale(networks, tmp_path):
    """DC-AE in small, saved with the pipeline: latents go back through its scaling_factor."""
    blocks, widths = ["ResBlock", "ResBlock"], [32, 32]
    ours = {"latent_channels": 32, "attention_head_dim": 8, "scaling_factor": 0.41407}
    for side in ("encoder", "decoder"):
        ours |= {f"{side}_block_types": blocks, f"{side}_block_out_channels": widths}
        ours |= {f"{side}_layers_per_block": [1, 1], f"{side}_qkv_multiscales": [[], []]}
    torch.manual_seed(0)
    other = AutoencoderDC(**ours).eval()
    pipe = quiet(LwdPipeline(LwdTransformer.from_network(networks[0]), other, scheduler()))
    call = {"seeds": torch.tensor([2]), "num_inference_steps": 2, "solver": "euler", "return_dict": False}
    latents = pipe(torch.tensor([1]), output_type="latent", **call)[0]
    tex = pipe.transformer.layout.split(pipe.scheduler.destandardise(latents))["tex"]
    with torch.no_grad():
        expected = other.decode(tex / 0.41407).sample
    assert torch.equal(pipe.decode(latents), expected)
    pipe.save_pretrained(tmp_path)
    assert torch.equal(LwdPipeline.from_pretrained(tmp_path).decode(latents), expected)


def test_pixels_that_are_not_finite_are_an_error(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "decode", lambda latents: torch.full((2, 3, 4, 4), float("nan")))
    with pytest.raises(UserError, match=r"images 0, 1: decoded to values that are not finite"):
        pipe([1, 2], seeds=[0, 1], num_inference_steps=1)


@pytest.mark.parametrize("solver", ["heun", "euler"])
@pytest.mark.parametrize("scale", [1.0, 2.0, {"tex": 1.0, "sem": 3.0}])
def test_guidance_and_steps_reach_the_sampler(pipe, guided, networks, solver, scale):
    labels, seeds = torch.tensor([1, 2]), torch.tensor([7, 8])
    call = {"num_inference_steps": 3, "guidance_scale": scale, "seeds": seeds, "solver": solver}
    for which, guidance in (
        (pipe, ClassifierFreeGuidance(scale, CLASSES)),
        (guided, AutoGuidance(networks[1], scale)),
    ):
        expected = generate(
            networks[0], learned(), LAYOUT, labels, seeds, networks[0].shape, solver=solver, steps=3, guidance=guidance
        )
        assert torch.equal(latents_of(which, labels, **call), expected.latents)


def euler_by_hand(networks, schedule, labels, seeds, scale, steps):
    """AutoGuidance at one scale, Euler's method, written out."""
    z = normal(Stream.SAMPLE_NOISE, seeds, 0, torch.zeros_like(seeds), (48, GRID, GRID))
    yield z
    for k in range(steps):
        times, rates = (x.float() for x in schedule(torch.full((len(z),), k / steps, dtype=torch.float64)))
        with torch.no_grad():
            main, weak = (each(z, times, labels) for each in networks)
        v = weak + scale * (main - weak)
        z = z + torch.cat([rates[:, :1, None, None] * v[:, :32], rates[:, 1:, None, None] * v[:, 32:]], 1) / steps
        yield z


def test_guided_euler_steps_by_hand(guided, networks):
    labels, seeds = torch.tensor([4, 0, 9]), torch.tensor([1, 2, 3])
    states = list(euler_by_hand(networks, learned(), labels, seeds, 2.5, 4))
    seen = []

    def look(pipe, step, tau, tensors):
        seen.append((pipe, step, tau, tensors["latents"]))
        return tensors

    call = {"num_inference_steps": 4, "solver": "euler", "guidance_scale": 2.5, "seeds": seeds}
    latents = latents_of(guided, labels, callback_on_step_end=look, **call)
    assert [(p is guided, step, tau) for p, step, tau, _ in seen] == [(True, k, (k + 1) / 4) for k in range(4)]
    for (*_, z), state in zip(seen, states[1:], strict=True):
        torch.testing.assert_close(z, state, rtol=1e-4, atol=1e-5)  # float32 sums in another order
    assert torch.equal(latents, seen[-1][3])
    assert torch.equal(latents, latents_of(guided, labels, **call))  # a callback that only looks changes no bit


def test_sampling_goes_on_from_what_a_callback_returns(pipe, networks):
    labels, seeds = torch.tensor([4, 0]), torch.tensor([1, 2])
    replaced = torch.randn(2, 48, GRID, GRID, generator=torch.Generator().manual_seed(0))

    def replace(pipe, step, tau, tensors):
        return {"latents": replaced} if step == 0 else None

    times, rates = (x.float() for x in learned()(torch.full((2,), 0.5, dtype=torch.float64)))
    with torch.no_grad():
        v = networks[0](replaced, times, labels)
    expected = replaced + LAYOUT.expand(rates, v) * v / 2
    call = {"num_inference_steps": 2, "solver": "euler", "seeds": seeds}
    latents = latents_of(pipe, labels, callback_on_step_end=replace, **call)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)

    def stop(pipe, step, tau, tensors):
        pipe._interrupt = True
        return {"latents": replaced + step}

    assert torch.equal(latents_of(pipe, labels, callback_on_step_end=stop, **call), replaced)
    with pytest.raises(UserError, match="must return latents of shape"):
        pipe(labels, callback_on_step_end=lambda *_: {"latents": replaced[:1]}, **call)


def test_a_callback_under_a_schedule_with_kinks(vae, networks):
    """Steps are cut elsewhere: both come near the accurate solution, and nearer with more of them."""
    offset = scheduler(Schedule.offset(LAYOUT.names, "sem"))
    pipe = quiet(LwdPipeline(LwdTransformer.from_network(networks[0]), vae.model, offset))
    exact = latents_of(pipe, 3, seeds=1, atol=1e-8, rtol=1e-6)
    errors = []
    for steps in (8, 32):
        calls = []
        z = latents_of(pipe, 3, steps, seeds=1, callback_on_step_end=lambda *a, calls=calls: calls.append(a[1]))
        assert calls == list(range(steps))
        errors.append(float((z - exact).norm() / exact.norm()))
    assert errors[0] < 0.05
    assert errors[1] < errors[0] / 8  # order 2: 16 times


def test_each_image_is_its_own(pipe):
    """Tolerance: float32 products of other batch sizes, through a few dozen evaluations."""
    labels, seeds = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([10, 11, 12, 13, 14])
    together = latents_of(pipe, labels, seeds=seeds)
    order = torch.tensor([4, 1, 0])
    torch.testing.assert_close(
        latents_of(pipe, labels[order], seeds=seeds[order]), together[order], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(latents_of(pipe, 2, seeds=12), together[2:3], rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_generators(pipe):
    def sample(labels, generator):
        return latents_of(pipe, labels, num_inference_steps=1, solver="euler", generator=generator)

    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    three = sample([1, 1, 1], seeded(0))
    assert torch.equal(three, sample([1, 1, 1], seeded(0)))
    assert not torch.equal(three, sample([1, 1, 1], seeded(1)))
    assert (three[0] - three[1]).abs().max() > 0.1  # one generator, another noise for each image
    torch.testing.assert_close(sample([1], seeded(0)), three[:1], rtol=1e-4, atol=1e-5)
    each = sample([1, 1, 1], [seeded(2), seeded(0), seeded(3)])
    torch.testing.assert_close(each[1:2], three[:1], rtol=1e-4, atol=1e-5)
    same = seeded(0)
    assert not torch.equal(sample([1], same), sample([1], same))  # a generator goes on
    torch.manual_seed(3)
    first = sample([1], None)
    assert torch.equal(first, sample([1], torch.default_generator.manual_seed(3)))


def test_scale_one_asks_the_network_once_and_changes_no_bit(guided, pipe):
    call = {"class_labels": [1, 2], "num_inference_steps": 5, "seeds": [1, 2]}
    calls = []
    hook = guided.transformer.register_forward_hook(lambda *_: calls.append("main"))
    weak_hook = guided.weak_transformer.register_forward_hook(lambda *_: calls.append("weak"))
    unguided = latents_of(guided, guidance_scale=1.0, **call)
    hook.remove(), weak_hook.remove()
    assert calls == ["main"] * 10  # Heun: two a step
    assert torch.equal(unguided, latents_of(pipe, **call))
    assert not torch.equal(unguided, latents_of(guided, guidance_scale=1.5, **call))
    assert not torch.equal(latents_of(pipe, guidance_scale=1.5, **call), latents_of(guided, guidance_scale=1.5, **call))


def test_no_class_is_the_null_label(pipe, networks):
    seeds = torch.tensor([1, 2])
    expected = generate(
        networks[0], learned(), LAYOUT, torch.tensor([CLASSES] * 2), seeds, networks[0].shape, solver="euler", steps=2
    )
    latents = latents_of(pipe, None, num_images_per_class=2, num_inference_steps=2, solver="euler", seeds=seeds)
    assert torch.equal(latents, expected.latents)


def test_output_types(pipe):
    call = {"class_labels": torch.tensor(3), "num_inference_steps": 1, "seeds": 4, "num_images_per_class": 1}
    by_type = {kind: pipe(output_type=kind, **call).images for kind in ("pil", "np", "pt", "latent")}
    assert by_type["latent"].shape == (1, 48, GRID, GRID)
    assert by_type["pt"].shape == (1, 3, 32, 32) and by_type["np"].shape == (1, 32, 32, 3)
    assert 0 <= by_type["np"].min() < by_type["np"].max() <= 1
    assert np.array_equal(by_type["pt"].permute(0, 2, 3, 1).numpy(), by_type["np"])
    # * 127.5 and * 255 round apart where a value lies in the middle of two
    assert np.abs(np.asarray(by_type["pil"][0]) - by_type["np"][0] * 255).max() <= 0.5 + 1e-3
    assert torch.equal(pipe.decode(by_type["latent"]).div(2).add(0.5).clamp(0, 1), by_type["pt"])
    (images,) = pipe(return_dict=False, **call)
    assert np.array_equal(images[0], by_type["pil"][0])


@pytest.mark.parametrize(("steps", "shown"), [(3, "6/6"), (None, "it [")])
def test_the_progress_bar_counts_evaluations(pipe, steps, shown):
    text = io.StringIO()
    expected = latents_of(pipe, [1], steps, guidance_scale=2.0, seeds=1)
    pipe.set_progress_bar_config(file=text, mininterval=0)
    assert torch.equal(latents_of(pipe, [1], steps, guidance_scale=2.0, seeds=1), expected)
    assert shown in text.getvalue()
    assert not pipe.transformer._forward_hooks


def test_offload(guided):
    """Without a GPU: the hooks are there, are called, and are gone with the pipeline's end; nothing changes."""
    call = {
        "class_labels": [1, 2],
        "num_inference_steps": 2,
        "guidance_scale": 1.5,
        "seeds": [1, 2],
        "output_type": "pt",
    }
    expected = guided(**call).images
    guided.enable_model_cpu_offload(device="cpu")
    assert torch.equal(guided(**call).images, expected)
    guided.remove_all_hooks()
    with pytest.raises(UserError, match="use enable_model_cpu_offload"):
        guided.enable_sequential_cpu_offload(device="cpu")
    assert torch.equal(guided(**call).images, expected)  # nothing was moved
    with pytest.raises(UserError, match="LwdTransformer: its weights are on the meta device"):
        LwdPipeline(LwdTransformer.from_network(network(0).to("meta")), guided.vae, scheduler())(1)


def test_from_pipe(guided, vae, networks):
    """A second pipeline on the same weights, which shares them; what is given stands for a component."""
    call = {"class_labels": [1, 2], "num_inference_steps": 2, "guidance_scale": 1.5, "seeds": [1, 2]}
    expected = latents_of(guided, **call)
    for again in (
        LwdPipeline.from_pipe(guided),
        LwdPipeline.from_pipe(LwdPipeline.from_pipe(guided)),
        LwdPipeline(**guided.components, **guided.parameters),
    ):
        assert again is not guided and again.components == guided.components
        assert again.config.decoded_group == "tex"
        assert torch.equal(latents_of(quiet(again), **call), expected)
    without = LwdPipeline.from_pipe(guided, weak_transformer=None)
    assert without.weak_transformer is None and without.vae is vae.model
    with pytest.raises(UserError, match="'sem' is no group of"):
        LwdPipeline.from_pipe(guided, decoded_group="sem")
    plain = quiet(LwdPipeline(LwdTransformer.from_network(networks[0]), vae.model, scheduler()))
    assert LwdPipeline.from_pipe(plain).vae is vae.model


def test_standard_switches_change_nothing(guided):
    call = {"class_labels": [1], "num_inference_steps": 1, "guidance_scale": 1.5, "seeds": [1], "output_type": "pt"}
    expected = guided(**call).images
    for switch in (
        lambda: guided.to("cpu"),
        lambda: guided.to(torch.float32),
        guided.enable_attention_slicing,
        lambda: guided.enable_attention_slicing("max"),
        guided.disable_attention_slicing,
        guided.reset_device_map,
        guided.maybe_free_model_hooks,
    ):
        switch()
        assert torch.equal(guided(**call).images, expected)


@pytest.mark.parametrize(
    ("saving", "loading"),
    [
        ({"safe_serialization": False}, {"use_safetensors": False}),
        ({"variant": "ema"}, {"variant": "ema"}),
        ({"max_shard_size": "50KB"}, {}),
        ({}, {"torch_dtype": torch.float32}),
        ({}, {"device_map": "cpu"}),
        ({}, {"low_cpu_mem_usage": False}),
    ],
    ids=["pickle", "variant", "pieces", "dtype", "device_map", "memory"],
)
def test_ways_to_save_and_load(networks, vae, tmp_path, saving, loading):
    """Without the VAE, whose files are diffusers' own business and large."""
    pipe = quiet(LwdPipeline(LwdTransformer.from_network(networks[0]), vae.model, scheduler()))
    pipe.register_modules(vae=None)
    pipe.save_pretrained(tmp_path, **saving)
    files = [path.name for path in (tmp_path / "transformer").iterdir()]
    assert ("variant" in saving) is any(".ema." in name for name in files)
    assert ("safe_serialization" in saving) is any(name.endswith(".bin") for name in files)
    assert ("max_shard_size" in saving) is (len(files) > 2)
    loaded = quiet(LwdPipeline.from_pretrained(tmp_path, vae=vae.model, **loading))
    call = {"class_labels": [1], "num_inference_steps": 1, "seeds": [1]}
    state = loaded.transformer.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in pipe.transformer.state_dict().items())
    # float32 products of weights that begin elsewhere in memory
    torch.testing.assert_close(latents_of(loaded, **call), latents_of(pipe, **call), rtol=1e-4, atol=1e-5)


def test_half_precision_is_refused_of_the_denoiser_alone(networks, vae, tmp_path):
    pipe = quiet(LwdPipeline(LwdTransformer.from_network(networks[0]), vae.model, scheduler()))
    pipe.register_modules(vae=None)
    pipe.save_pretrained(tmp_path)
    loaded = quiet(LwdPipeline.from_pretrained(tmp_path, vae=vae.model, torch_dtype=torch.bfloat16))
    with pytest.raises(UserError, match=r"weights are torch.bfloat16, must be float32; .* under torch.autocast"):
        loaded(1)
    call = {"class_labels": [1], "num_inference_steps": 1, "seeds": [1], "output_type": "pt"}
    with torch.autocast("cpu", torch.bfloat16):
        assert pipe.register_modules(vae=vae.model) is None and pipe(**call).images.isfinite().all()


def test_round_trip(vae, networks, tmp_path):
    main, weak = (LwdTransformer.from_network(each) for each in networks)
    pipe = quiet(LwdPipeline(main, vae.model, scheduler(), weak))
    pipe.save_pretrained(tmp_path / "pipe")
    call = {
        "class_labels": [1, 7],
        "guidance_scale": 1.5,
        "seeds": [3, 4],
        "output_type": "pt",
        "num_inference_steps": 2,
    }
    expected = pipe(**call).images
    folder = str(tmp_path / "pipe")
    for loaded in (
        LwdPipeline.from_pretrained(folder),
        DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True),
    ):
        assert type(loaded) is LwdPipeline
        assert torch.equal(quiet(loaded)(**call).images, expected)
        assert loaded.scheduler.schedule.hash() == learned().hash()
        assert loaded.config.decoded_group == "tex"
    without = LwdPipeline.from_pretrained(folder, weak_transformer=None, vae=vae.model)
    assert without.weak_transformer is None
    index = json.loads((tmp_path / "pipe" / "model_index.json").read_text())
    assert index["transformer"] == ["lwd.pipeline.transformer", "LwdTransformer"]  # where published folders look


def test_schedules_survive_the_file(tmp_path):
    for schedule in (learned(), Schedule.offset(LAYOUT.names, "sem"), Schedule.synchronous(LAYOUT.names)):
        scheduler(schedule).save_pretrained(tmp_path)
        read = LwdScheduler.from_pretrained(tmp_path).schedule
        assert read.names == schedule.names and read.hash() == schedule.hash()
    path = tmp_path / "scheduler_config.json"
    config = json.loads(path.read_text())
    config["schedule"]["groups"]["tex"] = PolynomialCurve(2).to_dict()
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="the curves were altered"):
        LwdScheduler.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"class_labels": 10}, r"class_labels\[0\]: class 10; the model has 0 to 9"),
        ({"class_labels": [1, -1]}, r"class_labels\[1\]: class -1"),
        ({"class_labels": [1.5]}, "class_labels: must be an integer or a list"),
        ({"class_labels": True}, "class_labels: must be an integer or a list"),
        ({"class_labels": []}, "class_labels: must be an integer or a list"),
        ({"class_labels": torch.zeros(2)}, "class_labels: must be an integer or a list"),
        ({"class_labels": torch.zeros(2, 2, dtype=torch.int64)}, "class_labels: must be an integer or a list"),
        ({"num_images_per_class": 0}, "num_images_per_class: must be at least 1"),
        ({"seeds": [1]}, "seeds: 1 for 2 images"),
        ({"seeds": [1, 2**63]}, "seeds: must be an integer or a list of integers below"),
        ({"generator": [torch.Generator()]}, "generator: a list of 1 for 2 images"),
        ({"generator": torch.Generator(), "seeds": [1, 2]}, "seeds, generator: give one"),
        ({"num_inference_steps": 0}, "num_inference_steps: must be an integer of at least 1"),
        ({"num_inference_steps": 2.0}, "num_inference_steps: must be an integer of at least 1"),
        ({"num_inference_steps": 2, "solver": "dopri5"}, "dopri5 chooses its own steps"),
        ({"solver": "heun"}, "heun needs num_inference_steps"),
        ({"guidance_scale": {"tex": 2.0}}, "guidance_scale: must name each of the groups"),
        ({"output_type": "jpg"}, "output_type: unknown 'jpg'"),
        ({"callback_on_step_end": print}, "dopri5 has no steps that stand alone"),
        ({"callback_on_step_end_tensor_inputs": ["prompt"]}, "there is only 'latents'"),
    ],
)
def test_what_a_call_refuses(pipe, arguments, line):
    with pytest.raises(UserError, match=line) as error:
        pipe(**{"class_labels": [1, 2], **arguments})
    assert "\n" not in str(error.value)


def test_components_that_do_not_fit(vae, networks):
    main = LwdTransformer.from_network(networks[0])
    twice = Layout([Group("tex", 32), Group("sem", 32)])
    both = LwdTransformer.from_network(network(0, layout=twice))
    wide = LwdScheduler.from_schedule(learned(), torch.zeros(64), torch.ones(64))
    ones = [1.0] * 48
    with pytest.raises(UserError, match=r"2 groups of .* have the VAE's 32 channels; name one"):
        LwdPipeline(both, vae.model, wide)
    assert LwdPipeline(both, vae.model, wide, decoded_group="sem").config.decoded_group == "sem"
    with pytest.raises(UserError, match="'sem' is no group of"):
        LwdPipeline(main, vae.model, scheduler(), decoded_group="sem")
    with pytest.raises(UserError, match="statistics of 64 channels"):
        LwdPipeline(main, vae.model, wide)
    pipe = quiet(LwdPipeline(main, vae.model, scheduler()))
    pipe.register_modules(scheduler=wide)
    with pytest.raises(UserError, match="statistics of 64 channels"):
        pipe(1)
    pipe.register_modules(scheduler=scheduler(), weak_transformer=both)
    with pytest.raises(UserError, match="weak_transformer: its layout"):
        pipe(1, guidance_scale=2.0)
    with pytest.raises(UserError, match="schedule has groups"):
        LwdPipeline(main, vae.model, scheduler(Schedule.synchronous(["sem", "tex"])))
    with pytest.raises(UserError, match="weak_transformer: its num_classes is 3"):
        LwdPipeline(main, vae.model, scheduler(), LwdTransformer.from_network(network(0, num_classes=3)))
    with pytest.raises(UserError, match="weak_transformer: its layout"):
        LwdPipeline(main, vae.model, scheduler(), both)
    for mean, std, line in ((ones, ones[1:], "one length"), (ones, [0.0, *ones[1:]], "finite and positive")):
        with pytest.raises(UserError, match=line):
            LwdScheduler(learned().to_dict(), LAYOUT.names, mean, std)
    with pytest.raises(UserError, match=r"weights are torch.bfloat16, must be float32"):
        quiet(LwdPipeline(LwdTransformer.from_network(network(0)).bfloat16(), vae.model, scheduler()))(1)


def export(folder, model, schedule):
    save_model(model, folder)
    schedule.save(folder / "schedule.json")
    return folder


@pytest.fixture
def encoded(tmp_path):
    """Statistics as `lwd encode` leaves them."""
    stats = {"latents": scheduler().mean[:32], "latents_sv": scheduler().mean[32:]}
    for key, mean in stats.items():
        (tmp_path / "data" / "train").mkdir(parents=True, exist_ok=True)
        save_stats(
            tmp_path / "data" / "train" / f"{key}_stats.pt", mean.view(1, -1, 1, 1), 2 * mean.abs().view(1, -1, 1, 1)
        )
    return tmp_path / "data"


def test_from_checkpoint(encoded, vae, networks, tmp_path):
    main = export(tmp_path / "main", networks[0], learned())
    weak = export(tmp_path / "weak", networks[1], learned())
    pipe = quiet(LwdPipeline.from_checkpoint(main, data=encoded, vae=vae, weak=weak))
    labels, seeds = torch.tensor([1]), torch.tensor([2])
    guidance = AutoGuidance(networks[1], 2.0)
    expected = generate(networks[0], learned(), LAYOUT, labels, seeds, networks[0].shape, guidance=guidance).latents
    assert torch.equal(latents_of(pipe, labels, seeds=seeds, guidance_scale=2.0), expected)
    mean = scheduler().mean
    assert torch.equal(pipe.scheduler.mean, mean) and torch.equal(pipe.scheduler.std, 2 * mean.abs())

    other = export(tmp_path / "other", networks[1], Schedule.synchronous(LAYOUT.names))
    with pytest.raises(UserError, match="weak model was trained under another schedule"):
        LwdPipeline.from_checkpoint(main, encoded, vae, weak=other)
    with pytest.raises(UserError, match=r"no manifest.json, so no VAE is known"):
        LwdPipeline.from_checkpoint(main, encoded)
    with pytest.raises(UserError, match=r"nowhere.*_stats.pt: missing"):
        LwdPipeline.from_checkpoint(main, tmp_path / "nowhere", vae)


def test_from_checkpoint_reads_the_manifest(encoded, vae, networks, tmp_path):
    main = export(tmp_path / "main", networks[0], learned())
    manifest = {"format": "lwd.data/1", "recipe": {}, "fingerprint": "here", "splits": {}, "judge": None}
    texture = {"group": "tex", "encoder": "identity", "factor": 2}
    write_json(encoded / "manifest.json", manifest | {"texture": texture})
    assert LwdPipeline.from_checkpoint(main, encoded, vae).config.decoded_group == "tex"
    recipe = {"schedule": learned().hash(), "data": "elsewhere"}
    sums = {str(file.relative_to(main)): checksum(file) for file in main.rglob("*") if file.is_file()}
    write_json(main / "state.json", {"step": 1, "recipe": recipe, "versions": {}, "sha256": sums})
    with pytest.raises(UserError, match=r"trained on data elsewhere, .* is here"):
        LwdPipeline.from_checkpoint(main, encoded, vae)


def test_without_diffusers_there_is_one_clear_line(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "diffusers" or name.startswith("lwd.pipeline")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"diffusers cannot be imported .*pip install 'lwd\[encoders\]'"):
        importlib.import_module("lwd.pipeline")
