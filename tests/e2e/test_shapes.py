"""Latents that are no images: learned, trained and sampled through the library and through the commands."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pixel_shuffle

import lwd
from any_shape import mlp, two_classes
from lwd.config import dump, load, parse
from lwd.data import write_shard, write_stats
from lwd.data.encoded import FORMAT
from lwd.errors import UserError
from lwd.files import write_json
from lwd.groups import Group, Layout
from lwd.runtime.compute import ComputeConfig
from lwd.sample.path import TRAJECTORY, Trajectory
from lwd.stages import evaluate, probe, report, sample, train
from lwd.stages.experiment import Experiment
from lwd.stages.report.page import read_page
from lwd.training.logging import read_log

CASES = {
    "image and token": (Layout([Group("image", 2, shape=(4, 4)), Group("token", 8, 2.0, shape=())]), ()),
    "vector": (Layout([Group("a", 4), Group("b", 2, 2.0)]), ()),
    "sequence": (Layout([Group("a", 3), Group("b", 1, 2.0)]), (6,)),
    "video": (Layout([Group("a", 2), Group("b", 1, 2.0)]), (2, 3, 3)),
}
each_case = pytest.mark.parametrize(("layout", "shape"), CASES.values(), ids=list(CASES))


def check_samples(samples: Tensor, labels: Tensor, means: Tensor) -> None:
    """Each sample is of its class: nearer to the mean of its own than to the other's, by a wide margin.

    The classes are opposite, so entries mixed up between groups or positions would agree half the time.
    """
    assert samples.shape == (len(labels), *means.shape[1:]) and samples.isfinite().all()
    share = (samples.sign() == means[labels].sign()).float().flatten(1).mean(1)
    assert share.min() > 0.6 and share.mean() > 0.8, share


@each_case
def test_through_the_library(layout: Layout, shape: tuple[int, ...]) -> None:
    """A schedule is learned, a network trained under it, and its samples are of the classes asked for."""
    torch.manual_seed(0)
    x1, labels, means = two_classes(layout, shape, 512)
    batches = list(zip(x1.split(64), labels.split(64), strict=True))
    quiet = ComputeConfig(device="cpu", progress=False)
    settings = {"steps": 20, "burn_in": 10, "lr": 1e-2, "rho_lr": 0.1}
    schedule = lwd.probe.learn(mlp(layout, shape, 2), batches, layout, layout.names[-1], compute=quiet, **settings)
    assert schedule.learned == layout.names[:1]
    network = mlp(layout, shape, 2)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for x, y in islice(cycle(batches), 200):
        lwd.flow.loss(lambda z, times, y=y: network(z, times, y), x, schedule, layout).backward()
        optimizer.step()
        optimizer.zero_grad()
    wanted = torch.arange(20) % 2
    how = {"solver": "heun", "steps": 10}
    found = lwd.sample.generate(
        network, schedule, layout, wanted, torch.arange(20), shape=(layout.channels, *shape), **how
    )
    check_samples(found.latents, wanted, means)


SCALE, OFFSET = 3.0, 5.0
"""Stored latents are not standardised."""


def write_data(folder: Path, layout: Layout, shape: tuple[int, ...]) -> Tensor:
    """Both splits of `two_classes` under ``folder``; the classes' means as stored."""
    x1, labels, means = two_classes(layout, shape, 256)
    stored = OFFSET + SCALE * x1
    for split, rows in (("train", slice(0, 192)), ("heldout", slice(192, 256))):
        write_shard(folder / split / "0.safetensors", layout, layout.split(stored[rows]), labels[rows])
        write_stats(folder / split, layout)
    return means


def experiment(folder: Path, layout: Layout, **changes: object) -> Experiment:
    settings = {
        "output": str(folder / "run"),
        "groups": layout.to_list(),
        "leader": layout.names[-1],
        "data": {"path": str(folder / "data"), "flip": False},
        "model": {"name": "any_shape:mlp", "num_classes": 2},
        "compute": {"device": "cpu", "progress": False},
        "probe": {"steps": 10, "burn_in": 5, "batch": 32, "lr": 1e-2},
        "train": {
            "steps": 200,
            "batch": 32,
            "lr": 5e-3,
            "ema_decay": 0.9,
            "repa_weight": 0,
            "heldout_every": 100,
            "preview_every": 200,
            "preview_images": 4,
            "schedule": {"path": str(folder / "run" / "probe" / "schedule.json")},
        },
        "sample": {"num": 20, "formats": ["latents"], "solver": "heun", "steps": 10, "trace": 1, "trace_points": 3},
    }
    return parse(Experiment, settings | changes, "test")


@each_case
def test_through_the_commands(layout: Layout, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Shards are written, then `lwd probe`, `train`, `sample`; `evaluate` says why it cannot."""
    means = write_data(tmp_path / "data", layout, shape)
    config = experiment(tmp_path, layout)
    assert probe.run(config).learned == layout.names[:1]
    end = train.run(config)
    lines = read_log(end.parent / "trace.jsonl")
    assert lines[-1]["heldout_corrected"] < 0.5 * lines[0]["loss"]
    times = [value for name in layout.names for value in lines[-1][f"loss_by_time_{name}"] if value is not None]
    assert times and all(0 < value < 10 for value in times)
    assert (end.parent / "previews" / "step-00000200.png").is_file()
    folder = sample.run(config)
    (shard,) = (folder / "latents").glob("*.safetensors")
    stored = load_file(shard)
    parts = {g.name: (stored[f"latents_{g.name}"] - OFFSET) / SCALE for g in layout.groups}
    assert {n: p.shape[2:] for n, p in parts.items()} == {g.name: g.shape or shape for g in layout.groups}
    # Stored latents are standardised by their own statistics: mean 5, deviation 3 * sqrt(1 + 0.3^2), so signs stay.
    check_samples(layout.join(parts), stored["labels"], means)
    path = Trajectory.read(folder / TRAJECTORY, layout)
    assert path.states.shape == (3, 1, layout.channels, *shape)
    assert (folder / "trajectory.png").stat().st_size > 1000
    with pytest.raises(UserError, match=r"holds no images \(sample.formats was \['latents'\]\)"):
        evaluate.run(config)


def test_one_group_of_a_flat_layout_is_decoded(tmp_path: Path) -> None:
    """Pictures of the image beside a token; the page shows both, and passes over samples that are latents alone."""
    layout = Layout([Group("image", 4, shape=(4, 4)), Group("token", 5, 2.0, shape=())])
    write_data(tmp_path / "data", layout, ())
    texture = {"group": "image", "encoder": "identity", "factor": 2}
    write_json(
        tmp_path / "data" / "manifest.json",
        {"format": FORMAT, "fingerprint": "made up", "recipe": {}, "splits": {}, "texture": texture, "judge": None},
    )
    config = experiment(tmp_path, layout)
    probe.run(config)
    few = {"steps": 4, "preview_every": 4, "heldout_every": 0}
    config = config.model_copy(update={"train": config.train.model_copy(update=few)})
    end = train.run(config)
    with Image.open(end.parent / "previews" / "step-00000004.png") as picture:
        assert picture.mode == "L" and picture.size == (8 * (2 * 9 + 1),) * 2  # 2 x 2 grey pictures of 8 x 8, enlarged
    for formats in (("npz", "latents"), ("latents",)):
        settings = config.sample.model_copy(update={"formats": formats, "name": formats[0]})
        sample.run(config.model_copy(update={"sample": settings}))
    with np.load(config.output / "samples" / "npz" / "images.npz") as file:
        images = torch.from_numpy(file["arr_0"])
    assert images.shape == (20, 8, 8, 3)
    (shard,) = (config.output / "samples" / "npz" / "latents").glob("*.safetensors")
    pixels = pixel_shuffle(load_file(shard)["latents_image"], 2)[:, 0].clamp(-1, 1)
    assert (images[..., 0] - (pixels + 1) * 127.5).abs().max() <= 0.5 + 1e-3  # rounded to 8 bits
    page = read_page(config)
    assert page.samples is not None and [sheet.title for sheet in page.samples.sheets] == ["npz", "real"]
    assert page.strip is not None and [strip.variant for strip in page.strip.strips] == ["latents", "npz"]
    labels = [row.label for row in page.strip.strips[0].rows]
    assert labels == ["token, expected", "image, expected", "image, as it is"]
    assert report.write_page(config).is_file()


def test_lightningdit_says_what_it_is_for(tmp_path: Path) -> None:
    layout, shape = CASES["sequence"]
    write_data(tmp_path / "data", layout, shape)
    config = experiment(tmp_path, layout, model={"name": "LightningDiT-Mini/1", "num_classes": 2})
    with pytest.raises(UserError, match=r"for latents \(C, n, n\), these are \(4, 6\)"):
        probe.run(config)


def test_heldout_latents_of_another_shape(tmp_path: Path) -> None:
    layout, shape = CASES["sequence"]
    write_data(tmp_path / "data", layout, shape)
    longer = {"a": torch.randn(4, 3, 7), "b": torch.randn(4, 1, 7)}
    write_shard(tmp_path / "data" / "heldout" / "0.safetensors", layout, longer, torch.zeros(4))
    config = experiment(tmp_path, layout)
    settings = config.train.model_copy(update={"schedule": config.train.schedule.model_copy(update={"kind": "offset"})})
    with pytest.raises(UserError, match=r"heldout: latents on a grid \(7,\), those of .*train on \(6,\)"):
        train.run(config.model_copy(update={"train": settings}))


def test_the_data_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/extending.md: what its Python writes, its YAML reads; the resolved config reads back as the same."""
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text().partition("**On disk**")[2]
    code, settings = (text.partition(f"```{kind}\n")[2].partition("```")[0] for kind in ("python", "yaml"))
    monkeypatch.chdir(tmp_path)
    image, token, labels = torch.randn(6, 4, 16, 16), torch.randn(6, 768), torch.zeros(6)
    named = {"Layout": Layout, "Group": Group, "write_shard": write_shard, "write_stats": write_stats}
    exec(code, named | {"image": image, "token": token, "labels": labels})
    config = load(Experiment, written(tmp_path / "own.yaml", settings), [])
    x1 = config.shards("train", features=False).read(torch.arange(6)).x1
    parts = config.layout.split(x1)
    assert parts["image"].shape == image.shape and parts["token"].shape == token.shape
    # By torch: standardised per channel (float32, 1e-5).
    expected = (token - token.mean(0)) / token.std(0, correction=0)
    torch.testing.assert_close(parts["token"], expected, rtol=1e-5, atol=1e-5)
    again = load(Experiment, written(tmp_path / "resolved.yaml", dump(config)), [])
    assert again.layout == config.layout and again.recipe() == config.recipe()


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
