"""Networks of the user's own in the commands: trained, resumed, sampled from, exported, sampled from again."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.config import dump, load
from lwd.data.samples import SampleSet
from lwd.errors import UserError
from lwd.files import read_json
from lwd.groups import Group, Layout
from lwd.models import ModelConfig, dropper, load_model, null_label, record_of, register, training_flops
from lwd.models.build import check_network
from lwd.models.pretrained import load_checkpoint_model
from lwd.models.registry import BUILDERS
from lwd.stages import sample, train
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
    config = config_of(overrides, model, *more, "train.heldout_every=4", "train.posthoc_ema=[0.1]")
    end = train.run(config)
    lines = read_log(end.parent / "trace.jsonl")
    assert len(lines) == 8 and "heldout_corrected" in lines[-1] and lines[-1]["tflops"] > 0
    assert ("repa" in lines[-1]) == (model is UNET)

    whole = weights(end)
    for step in (8,):  # killed after step 4, and gone on with
        os.rename(end.parent / f"step-{step:08d}", tmp_path / "whole")
    assert train.run(config) == end
    resumed = weights(end)
    assert resumed.keys() == whole.keys() and all(torch.equal(resumed[key], whole[key]) for key in whole)

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
