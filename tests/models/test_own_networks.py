"""Networks of the user's own in the commands: trained, resumed, sampled from, exported, sampled from again."""

import copy
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.config import dump, load
from lwd.errors import UserError
from lwd.files import read_json
from lwd.groups import Group, Layout
from lwd.models import ModelConfig, dropper, load_model, null_label, record_of, register, training_flops
from lwd.models.build import check_network
from lwd.models.pretrained import load_checkpoint_model
from lwd.models.registry import BUILDERS
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.placement import place
from lwd.runtime.processes import Processes
from lwd.stages import probe, sample, train
from lwd.stages.experiment import Experiment
from lwd.training.logging import read_log

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
LAYOUT = Layout([Group("tex", 4), Group("sem", 2)])
UNET = {"name": "networks:unet", "num_classes": 10, "width": 4}
DIT = {"name": "networks:DiT", "num_classes": 10, "layers": 1}
SHORT = ("train.schedule.kind=offset", "train.lr=1e-2", "train.checkpoint_steps=[4]", "sample.solver=heun")


def config_of(overrides, model, *more):
    return load(Experiment, DIGITS, [*overrides, *SHORT, f"model={json.dumps(model)}", *more])


def weights(checkpoint):
    names = ("model/model.safetensors", "ema/model.safetensors", "optimizer.safetensors")
    return {f"{name}/{key}": t for name in names for key, t in load_file(checkpoint / name).items()}


def latents(config, **settings):
    settings = {"formats": ("latents",), "steps": 3, "num": 6, "trace": 0, **settings}
    chosen = config.sample.model_copy(update=settings)
    folder = sample.run(config.model_copy(update={"sample": chosen}))
    found = sorted((folder / "latents").glob("*.safetensors"))
    assert found
    return torch.cat([t.flatten() for file in found for t in load_file(file).values() if t.is_floating_point()])


@pytest.mark.parametrize(
    ("model", "more"),
    [(UNET, ()), (DIT, ("train.repa_weight=0",))],
    ids=["a U-Net with a REPA head", "diffusers' DiT"],
)
def test_from_training_to_samples_of_an_export(overrides, tmp_path, model, more):
    config = config_of(
        overrides, model, *more, "train.heldout_every=4", "train.posthoc_ema=[0.1]", "train.preview_every=8"
    )
    end = train.run(config)
    lines = read_log(end.parent / "trace.jsonl")
    assert len(lines) == 8 and "heldout_corrected" in lines[-1] and lines[-1]["tflops"] > 0
    assert ("repa" in lines[-1]) == (model is UNET)

    whole = weights(end)
    end.rename(tmp_path / "whole")  # as if it had been killed after step 4
    assert train.run(config) == end
    resumed = weights(end)
    assert resumed.keys() == whole.keys() and all(torch.equal(resumed[key], whole[key]) for key in whole)

    statistics = {key.partition("/m")[2]: t for key, t in whole.items() if "running_" in key}
    assert bool(statistics) == (model is UNET)
    for key in statistics:
        assert torch.equal(whole[f"ema/m{key}"], whole[f"model/m{key}"]), "batch norm's, which are averages already"

    saved = read_json(end / "ema" / "config.json")
    assert saved.pop("layout") == config.layout.to_list() and saved.pop("network") == model["name"]
    feature_dim = saved.pop("feature_dim", None)
    assert saved == {"shape": [4, 4], **{key: value for key, value in model.items() if key != "name"}}
    assert (feature_dim is not None) == (model is UNET)

    drawn = latents(config, checkpoint=end, name="a")
    assert bool(drawn.isfinite().all())
    guided = config.sample.guidance.model_copy(update={"kind": "classifier_free", "scale": 2.0})
    assert not torch.equal(latents(config, checkpoint=end, name="b", guidance=guided), drawn)
    exported = CliRunner().invoke(app, ["export", str(end), str(tmp_path / "export")])
    assert exported.exit_code == 0, exported.output
    card = (tmp_path / "export" / "README.md").read_text()
    assert f"# {model['name']}, 8 steps" in card and f'network="{model["name"]}"' in card and "4 x 4" in card
    assert torch.equal(latents(config, checkpoint=tmp_path / "export", name="c"), drawn)

    ema = ["ema", str(end.parent), "--sigma-rel", "0.1", "--out", str(tmp_path / "posthoc")]
    averaged = CliRunner().invoke(app, ema)
    assert averaged.exit_code == 0, averaged.output
    assert latents(config, checkpoint=tmp_path / "posthoc" / "step-00000008", name="d").isfinite().all()


# What the section of the config means


def test_keys_of_an_own_network_are_its_settings():
    config = ModelConfig(name="networks:unet", num_classes=3, width=5, depth=7, settings=[1, {"a": None}])
    assert config.settings == {"width": 5, "depth": 7, "settings": [1, {"a": None}]} and config.depth is None
    written = config.model_dump(mode="json")
    assert written == {"name": "networks:unet", "num_classes": 3, **config.settings}
    assert ModelConfig(**written) == config and json.loads(config.model_dump_json()) == written


def test_recipes_of_lightningdit_stay_as_they_were():
    # As `lwd train` wrote it into checkpoints before there were own networks.
    plain = {"name": "LightningDiT-XL/1", "num_classes": 1000, "depth": None, "width": None, "heads": None}
    assert json.dumps(ModelConfig().model_dump(mode="json")) == json.dumps(
        plain | {"projector_width": None, "repa_block": 2}
    )


def test_the_config_in_the_run_folder_reads_back(overrides, tmp_path):
    config = config_of(overrides, UNET)
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(Experiment, tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{name: networks:unet, num_classes: 0}", "model.num_classes: input should be greater than 0"),
        ("{name: 'networks:'}", "model: 'networks:' should read module:attribute"),
        ("{name: 'a b:c'}", "should read module:attribute"),
        ("{name: LightningDiT-B/1, wdth: 3}", "unknown key 'model.wdth'; did you mean 'width'?"),
        ("{name: LightningDiT-B/1, zzz: 3}", "known keys: name, num_classes, depth, width, heads, projector_width"),
        ("{name: LightningDiT-B/1, settings: {a: 1}}", "model: settings: LightningDiT-B/1 has none"),
        ("{name: unet}", "an own network reads module:attribute"),
    ],
)
def test_configs_that_are_none(overrides, model, message):
    with pytest.raises(UserError) as caught:
        load(Experiment, DIGITS, [*overrides, f"model={model}"])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def build(name, **settings):
    network = ModelConfig(name=name, num_classes=3, **settings).build(LAYOUT, (4, 4))
    check_network(network, label_dropout=0.1)
    return network


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("no_such_module:build", {}, "no module 'no_such_module' is installed or in "),
        ("networks.inner:build", {}, "no module 'networks.inner'"),
        ("needs_another:build", {}, "needs_another needs 'no_such_module', which is not installed"),
        ("cannot_be_read:build", {}, "cannot_be_read.py, line 1: "),
        ("networks:unte", {}, "networks has no 'unte'; did you mean 'unet'?"),
        ("networks:NOTHING", {}, "is no function, but int"),
        ("networks:unet", {"widht": 3}, "model.widht: no setting of 'networks:unet'; did you mean 'width'?"),
        ("networks:unet", {"zzz": 3}, "model.zzz: no setting of 'networks:unet'; it takes width"),
        ("networks:unet", {"shape": [4, 4]}, "model.shape: comes from the data"),
        ("networks:forwards", {"widht": 3}, "unexpected keyword argument 'widht'"),
        ("networks:needs", {}, "model.size: 'networks:needs' needs this setting"),
        ("networks:knows_no_shape", {}, "'networks:knows_no_shape' takes no 'shape'"),
        ("networks:refuses", {}, "model: width 4 is odd today"),
        ("networks:no_module", {}, "'networks:no_module' builds function, which is no torch.nn.Module"),
        ("networks:no_parameters", {}, "without parameters"),
        ("networks:wrong_shape", {}, "gives (2, 7, 4, 4) for latents of shape (2, 6, 4, 4)"),
        ("networks:idle", {}, "parameter 'idle.weight' takes no part in the output"),
        ("networks:frozen", {}, "has no parameter that requires a gradient"),
        ("networks:without_null", {}, "has no null_label and no drop()"),
    ],
)
def test_networks_that_cannot_be_used_give_one_line(tmp_path, monkeypatch, name, settings, message):
    (tmp_path / "needs_another.py").write_text("import no_such_module")
    (tmp_path / "cannot_be_read.py").write_text("def build(:")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError) as caught:
        build(name, **settings)
    assert message in str(caught.value) and "model" in str(caught.value) and "\n" not in str(caught.value)


def test_an_error_of_the_networks_own_keeps_its_traceback():
    with pytest.raises(TypeError, match="unsupported operand"):
        build("networks:broken")


def test_modules_are_found_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "somebodys_file.py").write_text("from networks import unet as build")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.chdir(tmp_path)
    assert record_of(build("somebodys_file:build")).network == "somebodys_file:build"
    assert sys.path[-1] == str(tmp_path), "last: it hides nothing that is installed"


def test_the_check_leaves_the_network_and_the_generator_alone():
    torch.manual_seed(0)
    network = build("networks:unet")
    network.norm.eval()
    network.up.weight.grad = torch.zeros_like(network.up.weight)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    check_network(network, label_dropout=0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training and not network.norm.training
    assert network.enter.weight.grad is None and not network.up.weight.grad.any()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_operations_are_counted():
    width, (unet, meta) = 8, (ModelConfig(name="networks:unet", num_classes=3).build(LAYOUT, (4, 4)), None)
    # Multiply-adds: every weight of a convolution at every place it is applied to, 16 fine or 4 coarse.
    by_hand = (2 + 4) * width + 16 * 6 * 9 * width + 4 * width * 9 * 2 * width + 16 * 2 * width * 9 * 6
    by_hand += 4 * 2 * width * 4 * width  # the transposed one: each coarse place writes to 4 fine ones
    assert training_flops(unet) == 3 * 2 * by_hand
    assert ModelConfig(name="networks:unet", num_classes=3).training_flops(LAYOUT, (4, 4)) == 3 * 2 * by_hand
    assert meta is None and training_flops(build("networks:uncountable")) is None


# Conditions


def test_dropping():
    labels, dropped = torch.tensor([1, 2, 0]), torch.tensor([True, False, True])
    unet = build("networks:unet")
    assert null_label(unet) == 3 and dropper(unet)(labels, dropped).tolist() == [3, 2, 3]
    words = build("networks:words")
    assert null_label(words) is None and dropper(words)(labels, dropped).tolist() == [-1, 2, -1]
    assert dropper(lambda z, times, condition: z) is None


# Whose code is run


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """The last checkpoint of a U-Net."""
    output = tmp_path_factory.mktemp("own")
    settings = ["train={steps: 2, batch: 8, schedule: {kind: offset}}", "compute.progress=false", f"data.path={data}"]
    return train.run(load(Experiment, DIGITS, [*settings, f"model={json.dumps(UNET)}", f"output={output}"]))


def test_a_checkpoint_alone_runs_no_code(folder, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((folder / "ema" / file).read_bytes())
    changed = read_json(tmp_path / "config.json") | {"network": "evil:build"}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    for network in (None, "networks:unet"):
        with pytest.raises(UserError, match="'evil:build', whose code only you can have run; set model"):
            load_model(tmp_path, network)
    assert "evil" not in sys.modules


def test_lwd_sample_says_what_to_set(folder, overrides, tmp_path):
    config = tmp_path / "plain.yaml"
    config.write_text(dump(load(Experiment, DIGITS, overrides)))
    result = CliRunner().invoke(app, ["sample", "--config", str(config), f"sample.checkpoint={folder}"])
    assert result.exit_code == 2 and "set model.name=networks:unet" in result.stderr and result.stderr.count("\n") == 1


def test_what_is_registered_may_be_loaded(folder, overrides, tmp_path):
    import networks

    register("my-unet")(networks.unet)
    try:
        with pytest.raises(ValueError, match="is taken"):
            register("my-unet")
        end = train.run(config_of(overrides, UNET | {"name": "my-unet"}, "train.steps=2", "train.checkpoint_steps=[]"))
        assert read_json(end / "ema" / "config.json")["network"] == "my-unet"
        model, _ = load_checkpoint_model(end)
        average = load_file(end / "ema" / "model.safetensors")
        assert not model.training and all(torch.equal(t, average[key]) for key, t in model.state_dict().items())
    finally:
        del BUILDERS["my-unet"]
    with pytest.raises(UserError, match="whose code only you can have run"):
        load_model(end / "ema")
    with pytest.raises(ValueError, match="no colon"):
        register("networks:unet")


def test_what_is_for_lightningdit_only_says_so(folder, data, tmp_path):
    from lwd.pipeline import LwdPipeline

    with pytest.raises(UserError, match="holds a network of 'networks:unet', a pipeline only a LightningDiT"):
        LwdPipeline.from_checkpoint(folder, data)
    result = CliRunner().invoke(app, ["convert", str(folder / "ema"), str(tmp_path / "sfd.pt")])
    assert result.exit_code == 2 and "only a LightningDiT" in result.stderr


def test_damaged_folders_of_own_networks(folder, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((folder / "ema" / file).read_bytes())
    whole = read_json(tmp_path / "config.json")
    for change in ({"shape": "wide"}, {"layout": 3}, {"num_classes": None}, {"network": ["a"]}, {"width": 5}, {"w": 1}):
        (tmp_path / "config.json").write_text(json.dumps(whole | change))
        with pytest.raises(UserError) as caught:
            load_model(tmp_path, "networks:unet")
        assert "\n" not in str(caught.value)


# Placement


@pytest.mark.parametrize("name", ["networks:unet", "networks:DiT"])
def test_compiled_block_by_block_or_whole(name, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # what is compiled, not how fast
    network = build(name).eval()
    z, times, labels = torch.randn(2, 6, 4, 4), torch.rand(2, 2), torch.tensor([0, 3])
    with torch.no_grad():
        expected = network(z, times, labels)
        place(network, Processes(ComputeConfig(device="cpu", compile=True)))
        compiled = [module for module in network.modules() if module._compiled_call_impl is not None]
        assert compiled == (list(network.blocks) if name == "networks:DiT" else [network])
        torch.testing.assert_close(network(z, times, labels), expected)  # the same operations


def test_recomputation_is_refused_where_the_network_cannot(overrides):
    compute = "compute.activation_checkpointing=true"
    with pytest.raises(UserError, match="activation_checkpointing: this network has no checkpoint_blocks"):
        train.run(config_of(overrides, UNET, compute))


def test_a_schedule_is_learned_with_an_own_network(overrides, tmp_path):
    schedule = probe.run(config_of(overrides, UNET))
    assert schedule.provenance["model"] == "networks:unet"
    assert not torch.equal(schedule["tex"](torch.tensor([0.3]))[0], torch.tensor([0.3])), "something was learned"
    with pytest.raises(UserError, match="'networks:without_null' has no null_label"):
        probe.run(
            config_of(overrides, {"name": "networks:without_null", "num_classes": 10}, f"output={tmp_path / 'b'}")
        )
