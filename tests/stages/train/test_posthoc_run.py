"""Averages of any width through the real commands: tracked, resumed, killed, put together, sampled, exported."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.errors import UserError
from lwd.files import read_json
from lwd.models import load_model
from lwd.runtime.checkpoint import find_checkpoints
from lwd.stages import sample, train
from lwd.stages.train.power_ema import mixture
from lwd.stages.train.run import TrainTask
from lwd.training.power_ema import PosthocEMA, coefficients, gamma_of

WIDTHS = (0.05, 0.1)
FILES = {"sigma-0.05.safetensors", "sigma-0.1.safetensors", "config.json", "schedule.json", "state.json"}


def settings(experiment, folder, compute=None, **changes):
    schedule = experiment.train.schedule.model_copy(update={"kind": "offset"})
    changes = {"schedule": schedule, "posthoc_ema": WIDTHS, "posthoc_every": 5, "steps": 16, **changes}
    return experiment.model_copy(
        update={
            "output": folder,
            "train": experiment.train.model_copy(update=changes),
            "compute": experiment.compute.model_copy(update=compute or {}),
        }
    )


@pytest.fixture
def run(experiment, tmp_path):
    """A run with its weights after every step recorded, (step, name) -> float64."""
    history = []
    update = PosthocEMA.update

    def recording(self, step):
        update(self, step)
        live = next(iter(self.averages.values()))._moving[1]
        history.append([tensor.detach().double().clone() for tensor in live])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PosthocEMA, "update", recording)
        end = train.run(settings(experiment, tmp_path / "run", checkpoint_steps=(5, 10)))
    return end, history


def lwd(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def expected(history, width, step):
    """The closed form of the average, tensor by tensor."""
    k = np.minimum(np.arange(len(history) + 1), step) / step
    weights = np.diff(k ** (gamma_of(width) + 1))
    return [sum(w * t for w, t in zip(weights, tensors, strict=True)) for tensors in zip(*history, strict=True)]


def moving(folder):
    return [p.detach() for p in load_model(folder).parameters() if p.requires_grad]


def difference(tensors, others):
    return max((a.double() - b).abs().max().item() for a, b in zip(tensors, others, strict=True))


def test_snapshots_and_a_tracked_width_in_the_middle(run, tmp_path):
    end, history = run
    snapshots = find_checkpoints(end.parent / "posthoc")
    assert list(snapshots) == [5, 10, 15, 16]
    assert all({p.name for p in path.iterdir()} == FILES for path in snapshots.values())
    for width in WIDTHS:
        done = lwd("ema", end.parent, "--sigma-rel", width, "--step", 10)
        assert done.exit_code == 0 and f"sigma_rel {width:g}, from 4 averages" in done.output
        target = end.parent.with_name(f"learned-sigma-{width:g}") / "step-00000010"
        stored = load_file(snapshots[10] / f"sigma-{width}.safetensors")
        for key, tensor in load_file(target / "ema" / "model.safetensors").items():
            torch.testing.assert_close(tensor, stored[key], rtol=0, atol=1e-6)
        assert difference(moving(target / "ema"), expected(history, width, 10)) < 1e-6  # float32 weights below 2


@pytest.mark.parametrize(("width", "step", "bound"), [(0.08, 16, 1e-4), (0.15, 16, 5e-4), (0.08, 13, 8e-4)])
def test_an_untracked_width_against_the_recorded_weights(run, tmp_path, monkeypatch, width, step, bound):
    """The bounds are twice the errors measured here, of weights that travelled 1.6e-2; step 13 has no snapshot."""
    end, history = run
    if (width, step) != (0.08, 16):
        refused = lwd("ema", end.parent, "--sigma-rel", width, "--step", step, "--out", tmp_path / "out")
        assert refused.exit_code == 2 and not (tmp_path / "out").exists()
        assert "only allow a profile" in refused.output and "or step" in refused.output
    monkeypatch.setattr("lwd.stages.train.power_ema.FARTHEST", 1.0)
    done = lwd("ema", end.parent, "--sigma-rel", width, "--step", step, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    ours = moving(tmp_path / "out" / f"step-{step:08d}" / "ema")
    wanted = expected(history, width, step)
    assert difference(ours, wanted) < bound < 0.1 * difference(history[-1], history[0])


def test_in_float16_on_half_the_disk(run, experiment, tmp_path):
    """From snapshots of both types, since a run may go on with the other one; checkpoints stay exact.

    Each average is off by 2^-11 of a weight at most, which adds up by the coefficients' sizes; and as above.
    """
    end, history = run
    train.run(settings(experiment, tmp_path / "half", steps=10))
    half = train.run(settings(experiment, tmp_path / "half", posthoc_dtype="float16"))
    for name in (*(f"posthoc/sigma-{width}.safetensors" for width in WIDTHS), "ema/model.safetensors"):
        assert (end / name).read_bytes() == (half / name).read_bytes()
    snapshots = find_checkpoints(half.parent / "posthoc")
    sizes = [(path / "sigma-0.1.safetensors").stat().st_size for path in snapshots.values()]
    assert sizes[0] == sizes[1] and sizes[2] == sizes[3] and sizes[2] < 0.6 * sizes[0]
    assert lwd("ema", half.parent, "--sigma-rel", 0.08, "--out", tmp_path / "out").exit_code == 0
    mixed = tmp_path / "out" / "step-00000016" / "ema"
    assert {tensor.dtype for tensor in load_file(mixed / "model.safetensors").values()} == {torch.float32}
    assert torch.equal(load_model(mixed).state_dict()["pos_embed"], load_model(end / "ema").state_dict()["pos_embed"])
    times, widths = zip(*((step, width) for step in snapshots for width in WIDTHS), strict=True)
    parts = np.abs(coefficients(times, widths, 16, 0.08)).sum()
    largest = max(tensor.abs().max().item() for tensor in history[-1])
    off = difference(moving(mixed), expected(history, 0.08, 16))
    assert 1e-5 < off < parts * 2**-11 * largest + 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_not_finite_is_not_mixed(run, tmp_path, dtype):
    """The file that holds it is named and, of what is past float16's 65504, the setting."""
    whole, broken, last = (tmp_path / f"{letter}.safetensors" for letter in "abc")
    key = "final_layer.linear.weight"
    tensors = load_file(run[0] / "posthoc" / "sigma-0.1.safetensors")
    for file in (whole, last):
        save_file(tensors, file)
    tensors[key][0, 0] = 1e5 if dtype == torch.float16 else float("inf")
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, broken)
    with pytest.raises(UserError, match=rf"b\.safetensors: '{key}' is not finite; choose an earlier --step") as caught:
        mixture([whole, broken, last], [0.5, 0.2, 0.3])
    assert str(caught.value).endswith("train.posthoc_dtype=float32") == (dtype == torch.float16)


def test_what_it_writes_is_sampled_and_exported(run, experiment, tmp_path):
    end, _ = run
    assert lwd("ema", end.parent, "--sigma-rel", 0.08).exit_code == 0
    checkpoint = end.parent.with_name("learned-sigma-0.08") / "step-00000016"
    assert read_json(checkpoint / "state.json")["recipe"]["posthoc"] == {"sigma_rel": 0.08}
    sampling = experiment.sample.model_copy(update={"checkpoint": checkpoint, "num": 4, "solver": "euler", "steps": 2})
    folder = sample.run(experiment.model_copy(update={"output": tmp_path / "run", "sample": sampling}))
    assert folder.name == "learned-sigma-0.08-step-00000016"
    assert lwd("export", checkpoint, tmp_path / "export").exit_code == 0
    frozen = load_model(tmp_path / "export").state_dict()["pos_embed"]
    assert torch.equal(frozen, load_model(end / "model").state_dict()["pos_embed"])


def test_resumed_it_is_bit_for_bit_the_same(experiment, tmp_path):
    whole = train.run(settings(experiment, tmp_path / "whole"))
    compute = {"checkpoint_every": 7, "log_every": 1}
    halves = settings(experiment, tmp_path / "halves", compute)

    class StopError(Exception):
        pass

    original = TrainTask.after_step
    for stop in (9, 14):

        def stopping(self, step, stop=stop):
            if step == stop:
                raise StopError
            return original(self, step)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
            patch.setattr(TrainTask, "after_step", stopping)
            train.run(halves)
    assert [p.name for p in (tmp_path / "halves/train/learned/posthoc").iterdir()]
    end = train.run(halves)
    files = sorted(p.relative_to(whole.parent) for p in whole.parent.glob("posthoc/*/*"))
    assert len(files) == 4 * len(FILES)
    assert files == sorted(p.relative_to(end.parent) for p in end.parent.glob("posthoc/*/*"))
    for name in [*files, *(end.relative_to(end.parent) / "posthoc" / f"sigma-{w}.safetensors" for w in WIDTHS)]:
        assert (whole.parent / name).read_bytes() == (end.parent / name).read_bytes(), name


def test_they_change_nothing_else(experiment, tmp_path):
    plain = train.run(settings(experiment, tmp_path / "plain", posthoc_ema=()))
    tracked = train.run(settings(experiment, tmp_path / "tracked"))
    assert not (plain.parent / "posthoc").exists() and not (plain / "posthoc").exists()
    for name in ("model/model.safetensors", "ema/model.safetensors", "optimizer.safetensors"):
        assert (plain / name).read_bytes() == (tracked / name).read_bytes()


def test_started_afresh_it_leaves_no_old_snapshots(experiment, tmp_path):
    end = train.run(settings(experiment, tmp_path / "run"))
    train.run(settings(experiment, tmp_path / "run", {"resume": False}, steps=8))
    assert list(find_checkpoints(end.parent / "posthoc")) == [5, 8]


def test_mistakes_are_explained(run, tmp_path):
    folder = run[0].parent
    for arguments, words in (
        ([tmp_path, "--sigma-rel", 0.1], "no snapshots here"),
        ([folder, "--sigma-rel", 0.3], "between 0 and 0.2887"),
        ([folder, "--sigma-rel", 0.1, "--step", 4], "run from step 5 to 16"),
        ([folder, "--sigma-rel", 0.1, "--step", 17], "run from step 5 to 16"),
    ):
        done = lwd("ema", *arguments)
        assert done.exit_code == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert lwd("ema", folder, "--sigma-rel", 0.1).exit_code == 0
    assert "exists already" in lwd("ema", folder, "--sigma-rel", 0.1).stderr
    file = folder / "posthoc" / "step-00000010" / "sigma-0.1.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "sigma-0.1.safetensors: damaged" in lwd("ema", folder, "--sigma-rel", 0.2).stderr
