"""`lwd semvae`: what it leaves, exact resume, held-out measurements, its schedule, and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from lwd.config import load
from lwd.data.features import FeatureBatch, FeatureBatches, FeatureShards
from lwd.encoders.semvae import SemVAE, load_semvae
from lwd.errors import UserError
from lwd.runtime.compute import ComputeConfig
from lwd.runtime.processes import Processes
from lwd.runtime.seeding import Stream, normal
from lwd.stages import semvae
from lwd.stages.experiment import Experiment
from lwd.stages.semvae.heldout import HeldOut
from lwd.stages.semvae.loop import SemVAEObjective, SemVAETask
from lwd.training.logging import read_log
from lwd.training.optim import lr_factor
from traces import per_step

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
STEPS, WARMUP, LR = 8, 3, 1e-3
TINY = (
    f"semvae={{channels: 2, depth: 1, heads: 2, steps: {STEPS}, batch: 8, warmup: {WARMUP}, lr: {LR}, eval_every: 3}}",
    "semvae.ema_decay=0.5",
    "data.flip=true",
)
Config = Callable[..., Experiment]


@pytest.fixture
def config(data: Path, tmp_path: Path) -> Config:
    """An experiment in the folder of that name, with further overrides."""

    def make(folder: str, *more: str) -> Experiment:
        quiet = ("compute.progress=false", f"data.path={data}", f"output={tmp_path / folder}")
        return load(Experiment, DIGITS, [*quiet, *TINY, *more])

    return make


def files(folder: Path, *but: str) -> dict[str, bytes]:
    """Contents by relative path, ``but`` for files of those names; configs name their output, so they differ."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("config.yaml", *but))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_what_it_leaves(config: Config, data: Path, tmp_path: Path) -> None:
    experiment = config("run")
    folder = semvae.run(experiment)
    assert folder == tmp_path / "run/semvae/model"
    newest = tmp_path / f"run/semvae/step-{STEPS:08d}"
    assert (folder / "model.safetensors").read_bytes() == (newest / "ema/model.safetensors").read_bytes()
    assert (newest / "ema/model.safetensors").read_bytes() != (newest / "model/model.safetensors").read_bytes()
    trace = read_log(tmp_path / "run/semvae/trace.jsonl")
    assert [line["step"] for line in trace] == list(range(STEPS))
    for line in trace:
        assert line["loss"] == pytest.approx(line["mse"] + 1 - line["cosine"] + 1e-7 * line["kl"], rel=1e-5)
        assert all(len(line[key]) == 2 for key in ("latent_mean", "latent_mean_square", "posterior_variance"))
    measured = json.loads((tmp_path / "run/semvae/heldout.json").read_text())
    assert [line["step"] for line in measured] == [3, 6, STEPS]

    # The last line again, at once and in float64, from the files alone.
    features = load_file(next((data / "heldout").glob("*.safetensors")))["feats_dino"].double()
    model = load_semvae(folder).double()
    with torch.no_grad():
        mean, logvar = model.encoder(features.flatten(2).transpose(1, 2)).chunk(2, dim=-1)
        again = model.decoder(mean).transpose(1, 2).reshape(features.shape)
    expected = {
        "mse": float((again - features).square().mean()),
        "cosine": float(F.cosine_similarity(again, features, dim=1).mean()),
        "kl": float(0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum((1, 2)).mean()),
        "latent_mean": mean.mean((0, 1)).tolist(),
        "latent_std": mean.flatten(0, 1).std(0, correction=0).tolist(),
        "posterior_std": logvar.exp().mean((0, 1)).sqrt().tolist(),
    }
    for key, value in expected.items():
        assert measured[-1][key] == pytest.approx(value, rel=1e-4, abs=1e-5), key  # float32 against float64
    assert measured[-1]["mse"] < measured[0]["mse"] and measured[-1]["cosine"] > measured[0]["cosine"]


def test_a_killed_run_resumes_bit_for_bit(config: Config, tmp_path: Path) -> None:
    """Killed in step 7, past the measurement of step 6; it goes on from 4 with the rates and draws of 4, 5, ..."""
    keep = ("compute.checkpoint_every=4", "compute.keep_checkpoints=0")
    semvae.run(config("whole", *keep))

    class KilledError(Exception):
        pass

    original, rates = SemVAETask.after_step, []

    def killing(self: SemVAETask, step: int) -> object:
        rates.append(self.optimizer.param_groups[0]["lr"])
        if step == 7 and len(rates) == 7:
            raise KilledError
        return original(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SemVAETask, "after_step", killing)
        with pytest.raises(KilledError):
            semvae.run(config("halves", *keep))
        folder = tmp_path / "halves/semvae"
        assert not (folder / "model").exists() and sorted(p.name for p in folder.glob("step-*")) == ["step-00000004"]
        semvae.run(config("halves", *keep))
    whole = tmp_path / "whole/semvae"
    assert files(folder, "trace.jsonl") == files(whole, "trace.jsonl")
    assert per_step(read_log(folder / "trace.jsonl")) == per_step(read_log(whole / "trace.jsonl"))
    expected = [LR * lr_factor(step, STEPS, WARMUP, "cosine") for step in range(STEPS)]
    assert rates == expected[:7] + expected[4:]


def test_a_finished_run_is_left_alone_and_may_be_started_afresh(config: Config, tmp_path: Path) -> None:
    semvae.run(config("run"))
    before = files(tmp_path / "run")
    semvae.run(config("run"))
    assert files(tmp_path / "run") == before
    with pytest.raises(UserError, match=r"semvae\.steps was 8, now 16"):  # the cosine would be another
        semvae.run(config("run", "semvae.steps=16"))
    with pytest.raises(UserError, match=r"seed was 0, now 1"):
        semvae.run(config("run", "seed=1"))
    assert files(tmp_path / "run") == before
    semvae.run(config("run", "seed=1", "compute.resume=false", "semvae.eval_every=5"))
    assert [m["step"] for m in json.loads((tmp_path / "run/semvae/heldout.json").read_text())] == [5, STEPS]
    after = files(tmp_path / "run")
    assert after["semvae/model/model.safetensors"] != before["semvae/model/model.safetensors"]


def test_without_averaging_the_model_is_the_one_that_trained(config: Config, tmp_path: Path) -> None:
    folder = semvae.run(config("run", "semvae.ema_decay=0"))
    trained = tmp_path / f"run/semvae/step-{STEPS:08d}/model/model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == trained.read_bytes()


def test_the_objective_draws_one_sample_of_each_posterior_by_its_place() -> None:
    model, places = SemVAE(6, 2, 1, 2), torch.tensor([5, 1, 9, 0])
    settings = semvae.SemVAESettings(mse_weight=2.0, cosine_weight=0.5, l1_weight=0.25, kl_weight=0.1)
    features = torch.randn(4, 6, 2, 3, generator=torch.Generator().manual_seed(0)).half()
    loss, metrics = SemVAEObjective(model, settings, seed=3)(FeatureBatch(features, places), 11)
    mean, logvar = model.posterior(features.float())
    latents = mean + (0.5 * logvar).exp() * normal(Stream.NOISE, 3, 11, places, (2, 2, 3))
    difference = model.decode(latents) - features.float()
    cosine = F.cosine_similarity(difference + features.float(), features.float(), dim=1).mean()
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum() / 4
    mse, l1 = difference.square().mean(), difference.abs().mean()
    torch.testing.assert_close(loss, 2 * mse + 0.5 * (1 - cosine) + 0.25 * l1 + 0.1 * kl)
    torch.testing.assert_close(torch.stack([metrics[key] for key in ("mse", "cosine", "l1", "kl")]),
                               torch.stack([mse, cosine, l1, kl]))  # fmt: skip
    torch.testing.assert_close(metrics["latent_mean_square"], mean.square().mean((0, 2, 3)))
    torch.testing.assert_close(metrics["posterior_variance"], logvar.exp().mean((0, 2, 3)))


def test_only_features_are_needed(config: Config, data: Path, tmp_path: Path) -> None:
    """Shards with nothing else serve, and give the same."""
    semvae.run(config("whole"))
    for split in ("train", "heldout"):
        (tmp_path / "bare" / split).mkdir(parents=True)
        for file in (data / split).glob("*.safetensors"):
            tensors = {key: value for key, value in load_file(file).items() if key.startswith("feats")}
            save_file(tensors, tmp_path / "bare" / split / file.name)
    semvae.run(config("bare-run", f"data.path={tmp_path / 'bare'}"))
    names = ("semvae/model/model.safetensors", "semvae/heldout.json")
    bare, whole = files(tmp_path / "bare-run"), files(tmp_path / "whole")
    assert all(bare[name] == whole[name] for name in names)


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Three shards, 10 images in all; image i holds i + 1 throughout, its twin -(i + 1)."""
    for number, rows in enumerate(torch.arange(10).split(4)):
        values = (rows + 1.0).half()[:, None, None, None].expand(-1, 6, 2, 3).contiguous()
        tmp_path.joinpath("numbered").mkdir(exist_ok=True)
        save_file({"feats_dino": values, "feats_dino_flip": -values}, tmp_path / f"numbered/{number}.safetensors")
    return tmp_path / "numbered"


def test_batches_are_functions_of_the_step_shared_out_over_processes(numbered: Path) -> None:
    shards = FeatureShards(numbered, flip=True)
    assert len(shards) == 10 and shards.shape == (6, 2, 3)
    whole = FeatureBatches(shards, 6, seed=3)
    seen = []
    for step in range(10):
        batch = whole[step]
        assert batch.features.dtype == torch.float16 and (batch.features == batch.features[:, :1, :1, :1]).all()
        parts = [FeatureBatches(shards, 6, seed=3, rank=rank, world=2)[step] for rank in (0, 1)]
        for joined, all_ in zip((torch.cat(p) for p in zip(*parts, strict=True)), batch, strict=True):
            assert torch.equal(joined, all_)
        seen.append(batch.features[:, 0, 0, 0].float())
    visits = torch.cat(seen).view(6, 10)
    assert torch.equal(visits.abs().sort(1).values, torch.arange(1.0, 11).expand(6, -1))
    assert 0 < (visits < 0).sum() < 60
    plain = FeatureShards(numbered).read(torch.tensor([9, 0, 4, 3]))
    assert plain[:, 0, 0, 0].tolist() == [10, 1, 5, 4]
    with pytest.raises(UserError, match="batch 6 does not divide over 4 processes"):
        FeatureBatches(shards, 6, seed=3, world=4)


def test_a_measurement_replaces_later_ones(numbered: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SemVAE(6, 2, 1, 2).eval()
    processes = Processes(ComputeConfig(device="cpu", progress=False))
    measured = [HeldOut(FeatureShards(numbered), tmp_path / "h.json", batch, processes) for batch in (3, 64)]
    first = measured[0].measure(model, 4)
    for key, value in measured[1].measure(model, 4).items():
        assert value == pytest.approx(first[key], rel=1e-5), f"{key}, whatever the batch"
    measured[0].measure(model, 9)
    measured[0].measure(model, 6)
    assert [line["step"] for line in json.loads((tmp_path / "h.json").read_text())] == [4, 6]


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        run()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refusals(config: Config, numbered: Path, tmp_path: Path) -> None:
    assert "must be under steps" in refusal(lambda: config("run", "semvae.warmup=8"))
    assert "choose other semvae.heads" in refusal(lambda: semvae.run(config("run", "semvae.heads=7")))
    assert "lwd encode" in refusal(lambda: semvae.run(config("run", f"data.path={tmp_path / 'none'}")))
    assert not (tmp_path / "run").exists()

    file = numbered / "1.safetensors"
    tensors = load_file(file)

    def changed(**change: torch.Tensor) -> str:
        save_file(tensors | change, file)
        return refusal(lambda: FeatureShards(numbered, flip=True).read(torch.arange(10)))

    nan = tensors["feats_dino"].clone()
    nan[2, 5, 1, 1] = math.nan
    assert changed(feats_dino=nan).startswith(f"{file}: image 2, channel 5 of 'feats_dino' is not finite")
    assert "4 rows of 'feats_dino', 3 of 'feats_dino_flip'" in changed(feats_dino_flip=-tensors["feats_dino"][:3])
    assert "differs between shards" in changed(
        feats_dino=nan[:, :4].contiguous(), feats_dino_flip=nan[:, :4].contiguous()
    )
    assert "must be features (N, D, h, w)" in changed(feats_dino=nan[:, 0].contiguous())
    save_file({"latents": nan}, file)
    assert f"{file}: missing key 'feats_dino' (it has latents)" in refusal(lambda: FeatureShards(numbered))
    file.write_bytes(b"x" * 100)
    assert "not a readable safetensors file" in refusal(lambda: FeatureShards(numbered))
