"""One process, accumulation, two processes (gloo) under DDP and under FSDP2: the same losses and the same files."""

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed.fsdp  # with SymPy behind it: once, and not in every process that is forked
from safetensors.torch import load_file
from several_runs import run_all

from children import said_at_the_end, started
from lwd.config import load
from lwd.stages import probe, train
from lwd.stages.experiment import Experiment
from lwd.training.logging import read_log
from ranks import in_two_processes
from shared import built_once

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
STEPS, MIDDLE, END = 30, 15, 20
TOLERANCE = 1e-5
"""Relative, on losses that halve over the 30 steps. Means over parts of a batch round otherwise than the whole one's,
1e-7 in a step; measured after 50 steps at this learning rate: 2e-7 between any two."""
BAD = 4
"""The step that is spoilt."""
SHARD = "compute.shard=true"


def overrides(data: Path, output: Path, *more: str, **changes) -> list[str]:
    settings = {"steps": STEPS, "batch": 16, "lr": 1e-3, "ema_decay": 0.9, "schedule": {"kind": "offset"}}
    settings |= {"checkpoint_steps": [MIDDLE, END], "heldout_every": 15, **changes}
    return [
        "model={name: LightningDiT-Mini/1, num_classes: 10}",
        "probe={steps: 20, burn_in: 10, batch: 16, lr: 1e-3}",
        "compute.progress=false",
        f"data.path={data}",
        f"output={output}",
        f"train={json.dumps(settings)}",
        *more,
    ]


def checkpoint(output: Path, step: int) -> Path:
    return output / "train" / "learned" / f"step-{step:08d}"


def under_torchrun(folder: Path, jobs: list[dict]) -> None:
    (folder / "jobs.json").write_text(json.dumps(jobs))
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*start, str(Path(__file__).with_name("several_runs.py")), str(folder / "jobs.json")]
    with started(command, environment=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}) as process:
        said = said_at_the_end(process)
    assert process.returncode == 0 and "Warning" not in said, said[-3000:]


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, one folder each."""
    return built_once(tmp_path_factory, "sharded", partial(make_runs, data))


def make_runs(data: Path, folder: Path) -> None:
    def here(name: str, *more: str, **changes) -> None:
        train.run(load(Experiment, CONFIG, overrides(data, folder / name, *more, **changes)))

    def job(name: str, *more: str, start: str | None = None, stage: str = "train", spoil=None, **changes) -> dict:
        copy = {} if start is None else {"copy": [str(checkpoint(folder / n, MIDDLE)) for n in (start, name)]}
        settings = overrides(data, folder / name, *more, **({} if start is None else {"steps": END}), **changes)
        return {"stage": stage, "config": str(CONFIG), "overrides": settings, **copy, **(spoil or {})}

    here("one")
    here("micro", "compute.micro_batch=8")
    here("one-asked-to-shard", SHARD, steps=2, heldout_every=0)
    probe.run(load(Experiment, CONFIG, overrides(data, folder / "one")))
    under_torchrun(
        folder,
        [
            job("ddp"),
            job("sharded", SHARD),
            job("sharded-micro", SHARD, "compute.micro_batch=3", "compute.activation_checkpointing=true", steps=8),
            job("sharded-from-sharded", SHARD, start="sharded"),
            job("ddp-from-sharded", start="sharded"),
            job("sharded-from-ddp", SHARD, start="ddp"),
            job("sharded-from-one", SHARD, start="one"),
            job("ddp-spoilt", spoil={"spoil_loss": [BAD, 1]}, steps=10),
            job("sharded-spoilt", SHARD, spoil={"spoil_share": [BAD, 1]}, steps=10),
            job("sharded-clipped", SHARD, "compute.clip_norm=0.5", steps=10),
            job("sharded-compiled", SHARD, "compute.compile=true", steps=4),
            job("probe", SHARD, stage="probe"),
        ],
    )
    shutil.copytree(checkpoint(folder / "sharded", MIDDLE), checkpoint(folder / "one-from-sharded", MIDDLE))
    here("one-from-sharded", steps=END)
    here("one-clipped", "compute.clip_norm=0.5", steps=10)


def trace(runs: Path, name: str, stage: str = "train/learned") -> list[dict]:
    return read_log(runs / name / stage / "trace.jsonl")


def assert_same_losses(lines: list[dict], expected: list[dict], *also: str) -> None:
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for ours, theirs in zip(lines, expected, strict=True):
        for key in {"loss", *also} & theirs.keys():  # some are not logged in every step
            assert ours[key] == pytest.approx(theirs[key], rel=TOLERANCE), (key, ours["step"])


def test_uneven_micro_batches_and_activation_checkpointing_change_nothing(runs):
    lines = trace(runs, "sharded-micro")
    assert len(lines) == 8
    assert_same_losses(lines[:-1], trace(runs, "one")[:7], "grad_norm")


@pytest.mark.parametrize("name", ["micro", "ddp", "sharded"])
def test_losses_are_those_of_one_process_over_30_steps(runs, name):
    one = trace(runs, "one")
    assert len(one) == STEPS and one[-1]["loss"] < 0.6 * one[0]["loss"], "something was learned"
    assert [line["step"] for line in one if "heldout_corrected" in line] == [14, 29]
    assert_same_losses(trace(runs, name), one, "grad_norm", "ema_drift", "heldout_corrected")


def test_sharded_is_divided_and_one_process_is_not(runs):
    """Half of the weights of network and average on each process, of the probe's network, of nothing under DDP."""
    shares = {n: [json.loads((runs / n / f"shares-{r}.json").read_text()) for r in (0, 1)] for n in ("ddp", "sharded")}
    probed = [json.loads((runs / "probe" / f"shares-{rank}.json").read_text()) for rank in (0, 1)]
    assert shares["ddp"] == [[], []] and [len(s) for s in shares["sharded"]] == [2, 2] and len(probed[0]) == 1
    for first, second in [*zip(*shares["sharded"], strict=True), *zip(*probed, strict=True)]:
        # What has one row only (the table of positions) is the first one's.
        assert first + second == pytest.approx(1) and 0.5 <= first < 0.55
    assert trace(runs, "one-asked-to-shard")[0]["loss"] == trace(runs, "one")[0]["loss"]


def contents(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{file.relative_to(folder)}:{key}": value for file in files for key, value in load_file(file).items()}


@pytest.mark.parametrize("name", ["ddp", "one"])
def test_checkpoints_have_the_same_form(runs, name):
    sharded, other = (contents(checkpoint(runs / n, MIDDLE)) for n in ("sharded", name))
    assert sharded.keys() == other.keys() and len(sharded) > 100
    for key, tensor in sharded.items():
        assert tensor.shape == other[key].shape and tensor.dtype == other[key].dtype, key
        # AdamW moves a weight with a gradient of nothing but rounding by up to its rate 1e-3 in a step; measured: 1e-5.
        torch.testing.assert_close(tensor, other[key], rtol=1e-4, atol=1e-4, msg=key)
    files = [
        sorted(p.relative_to(runs / n).as_posix() for p in checkpoint(runs / n, MIDDLE).rglob("*"))
        for n in ("sharded", name)
    ]
    assert files[0] == files[1]


def test_resumed_as_it_was_it_is_bit_for_bit_the_undisturbed_run(runs):
    resumed, whole = (contents(checkpoint(runs / n, END)) for n in ("sharded-from-sharded", "sharded"))
    assert resumed.keys() == whole.keys() and all(torch.equal(resumed[key], whole[key]) for key in whole)


@pytest.mark.parametrize("name", ["one-from-sharded", "ddp-from-sharded", "sharded-from-ddp", "sharded-from-one"])
def test_a_checkpoint_goes_on_under_any_other(runs, name):
    assert_same_losses(trace(runs, name), trace(runs, "one")[MIDDLE:END], "grad_norm")


def test_nan_on_one_process_skips_the_step_on_all(runs):
    ddp, sharded = trace(runs, "ddp-spoilt"), trace(runs, "sharded-spoilt")
    for lines in (ddp, sharded):
        assert [line["skipped"] for line in lines] == [float(step == BAD) for step in range(10)]  # mean over processes
    assert_same_losses([line for line in sharded if line["step"] != BAD], [line for line in ddp if line["step"] != BAD])
    assert all(torch.isfinite(t).all() for t in contents(checkpoint(runs / "sharded-spoilt", 10)).values())


def test_compiled_blocks_can_be_sharded(runs):
    assert_same_losses(trace(runs, "sharded-compiled"), trace(runs, "one")[:4], "grad_norm")


def test_clipping_is_that_of_one_process(runs):
    assert_same_losses(trace(runs, "sharded-clipped"), trace(runs, "one-clipped"), "grad_norm")
    assert trace(runs, "one-clipped")[-1]["loss"] != trace(runs, "one")[9]["loss"], "it was clipped"


def test_the_probe_learns_the_same_schedule(runs):
    one, sharded = trace(runs, "one", "probe"), trace(runs, "probe", "probe")
    assert_same_losses(sharded, one, "grad_norm")
    # AdamW's rate for rho is 1e-2; 2e-7 between the losses.
    assert sharded[-1]["rho_tex"] == pytest.approx(one[-1]["rho_tex"], abs=1e-5)
    assert one[-1]["rho_tex"] != one[0]["rho_tex"]


def test_a_network_of_somebody_elses(data, tmp_path):
    """diffusers' DiT, with blocks, and a U-Net without: DDP and FSDP2 give the losses of one process."""
    dit, unet = ({"name": f"tests.networks:{name}", "num_classes": 10} for name in ("DiT", "plain_unet"))
    few = {"steps": 4, "repa_weight": 0, "heldout_every": 4, "checkpoint_steps": []}

    def settings(name: str, model: dict, *more: str) -> list[str]:
        return overrides(data, tmp_path / name, f"model={json.dumps(model)}", *more, **few)

    jobs = {
        "ddp": settings("ddp", dit),
        "sharded": settings("sharded", dit, SHARD),
        "whole-sharded": settings("whole-sharded", unet, SHARD),
    }
    in_two_processes(
        tmp_path / "said",
        run_all,
        [{"stage": "train", "config": str(CONFIG), "overrides": job} for job in jobs.values()],
    )
    for name, model in (("one", dit), ("one-unet", unet)):
        train.run(load(Experiment, CONFIG, settings(name, model)))
    for name, one in (("ddp", "one"), ("sharded", "one"), ("whole-sharded", "one-unet")):
        assert_same_losses(trace(tmp_path, name), trace(tmp_path, one), "grad_norm", "heldout_corrected")
        ours, expected = (contents(checkpoint(tmp_path / n, 4)) for n in (name, one))
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in expected.items()}
    shares = json.loads((tmp_path / "sharded" / "shares-0.json").read_text())
    assert len(shares) == 2 and all(0.45 < share < 0.6 for share in shares), "network and average, half on each"
