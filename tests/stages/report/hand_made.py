"""An output folder made by hand: what the stages would leave, with no trained network and groups of other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from lwd.config import parse
from lwd.data import write_shard
from lwd.data.stats import save_stats
from lwd.files import write_json
from lwd.groups import Layout
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule
from lwd.stages.experiment import Experiment

LAYOUT = Layout([{"name": "paint", "channels": 4, "weight": 1.0}, {"name": "idea", "channels": 2, "weight": 2.0}])
WEIGHTS = (0.01, 0.04, 0.2)
RHO = {0.01: [-9.0, -9.0, -9.0, -9.0, 4.0], 0.04: [-2.0, -1.0, 0.0, 0.5, 1.0], 0.2: [1.0, 0.0, 0.0, 0.0, 0.0]}
FLOOR = 0.617
RESULTS = [
    {"variant": variant, "seed": seed, "steps": steps, "frechet": value, "accuracy": accuracy, "nfe": 41.25}
    for variant, steps, values, accuracy in (
        ("together", 1000, (9.5, 9.75), 0.81),
        ("apart", 1000, (8.0, 8.125), 0.79),
        ("taught", 1000, (12.0, 14.0), None),
        ("together", 2000, (5.5, 6.5), 0.91),
        ("apart", 2000, (6.0, 6.75), 0.88),
        ("taught", 2000, (7.25, 7.375), None),
    )
    for seed, value in enumerate(values)
]


def config(output: Path, **more: Any) -> Experiment:
    """The experiment of the folder."""
    settings = {
        "output": str(output),
        "groups": LAYOUT.to_list(),
        "leader": "idea",
        "data": {"flip": False},
        "model": {"name": "LightningDiT-Mini/1", "num_classes": 10},
        "compare": {
            "budgets": [1000, 2000],
            "seeds": [0, 1],
            "variants": {
                "together": {"schedule": {"kind": "synchronous"}},
                "apart": {"schedule": {"kind": "offset", "delta": 0.25}, "corrected": False},
                "taught": {"schedule": {"kind": "learned"}},
            },
        },
    }
    return parse(Experiment, settings | more, "test")


def schedule(weight: float) -> Schedule:
    """What the probe at lambda = ``weight`` learned."""
    curves = {"paint": PolynomialCurve.from_rho(torch.tensor(RHO[weight])), "idea": IdentityCurve()}
    provenance = {"layout": LAYOUT.to_list(), "lambda": weight, "steps": 60, "burn_in": 30, "batch": 64}
    return Schedule(curves, provenance).requires_grad_(False)


def write_data(output: Path) -> None:
    """Held-out shards of four images a class, their statistics and the manifest."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(4)
    latents = {g.name: torch.rand(40, g.channels, 4, 4, generator=generator) for g in LAYOUT.groups}
    folder = output / "data" / "heldout"
    write_shard(folder / "latents_rank00_shard000.safetensors", LAYOUT, latents, labels)
    for group in LAYOUT.groups:
        shape = (1, group.channels, 1, 1)
        save_stats(folder / f"latents_{group.name}_stats.pt", torch.full(shape, 0.1), torch.full(shape, 0.5))
    write_json(
        output / "data" / "manifest.json",
        {
            "format": "lwd.data/1",
            "fingerprint": "0123456789ab",
            "recipe": {"dataset": "scribbles"},
            "splits": {"train": {"images": 1234}, "heldout": {"images": 40}},
            "texture": {"group": "paint", "encoder": "identity", "factor": 2},
            "semantic": {"group": "idea", "explained_variance_ratio": [0.5, 0.125], "accuracy_heldout": 0.875},
            "judge": {"channels": 8, "classes": 10, "image_channels": 1, "accuracy_heldout": 0.9375},
        },
    )
    write_json(output / "data" / "versions.json", {"lwd": "0.1.0", "torch": "9.8.7"})


def write_sweep(output: Path) -> None:
    """Three probes, the weakest collapsed, the middle one chosen and with a trace."""
    rows = []
    for weight in WEIGHTS:
        one = schedule(weight)
        one.save(output / "sweep" / f"lambda-{weight:g}" / "schedule.json")
        times = [float(t) for t in one["paint"](torch.tensor([0.25, 0.5, 0.75]))[0]]
        distance = {0.01: 0.0123, 0.04: 0.345, 0.2: 0.789}[weight]
        rows.append(
            {
                "kinetic_weight": weight,
                "seed": 0,
                "distance_from_collapse": distance,
                "mass": 1 - distance,
                "collapsed": distance < 0.1,
                "steps": 20 if distance < 0.1 else 60,
                "stopped": "collapsed" if distance < 0.1 else None,
                "folder": f"lambda-{weight:g}",
                "curve": {"paint": times},
            }
        )
    table = {
        "rows": rows,
        "lambdas": [{"kinetic_weight": w, "stable": w > 0.01, "disagreement": None} for w in WEIGHTS],
        "collapsed_below": 0.1,
        "mass_above": 0.5,
        "points": [0.25, 0.5, 0.75],
        "chosen": 0.04,
        "cost": {"steps": 140, "planned": 180, "step_flops": 10, "main_flops": 5600, "flops": 1400, "share": 0.25},
    }
    write_json(output / "sweep" / "table.json", table)
    schedule(0.04).save(output / "schedule.json")
    write_trace(output / "sweep" / "lambda-0.04" / "trace.jsonl", ["paint", "idea"], ["paint"])


def write_trace(path: Path, groups: list[str], learned: list[str]) -> None:
    """Sixty steps of a probe."""
    lines = [
        {"step": step, "loss": 2.0 - step / 60, "flow": 1.5, "kinetic": 3.0}
        | {f"flow_{name}": 1.0 + step / 100 for name in groups}
        | {f"rho_{name}": [m - step / 50 for m in range(5)] for name in learned}
        | {f"curve_{name}": [0.1, 0.3, 0.6] for name in learned}
        for step in range(60)
    ]
    lines[-1] |= {"images_per_s": 9.0, "loss_by_time_paint": [0.5, None], "loss_by_time_paint_count": [7, 0]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_results(output: Path) -> None:
    """The convergence table, and the floor in one evaluation."""
    write_json(output / "results.json", RESULTS)
    parts = ("intervals", "extrapolations", "details", "samples", "reference", "extractors", "settings", "seconds")
    evaluation = {"format": "lwd.evaluation/1", "metrics": {"frechet_real": FLOOR}, **{part: {} for part in parts}}
    write_json(output / "samples" / "together-seed0-2000" / "evaluation.json", evaluation)


def write_sample_set(folder: Path, images: torch.Tensor, labels: torch.Tensor) -> None:
    """What `lwd sample` leaves: uint8 images (N, H, W, 3), labels (N,)."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "images.npz", arr_0=images.numpy(), arr_1=labels.numpy())
    save_file(
        {"labels": labels, "seeds": labels.clone(), "nfe": torch.full_like(labels, 8)}, folder / "samples.safetensors"
    )
    write_json(folder / "samples.json", {"format": "lwd.samples/1", "count": len(labels), "formats": ["npz"]})


def write_samples(output: Path) -> None:
    """Samples of every variant, seed and budget; paths of the first seed at the largest budget."""
    generator = torch.Generator().manual_seed(1)
    for result in RESULTS:
        folder = output / "samples" / f"{result['variant']}-seed{result['seed']}-{result['steps']}"
        folder.mkdir(parents=True, exist_ok=True)
        labels = torch.arange(30) % 10
        write_sample_set(folder, torch.randint(0, 256, (30, 8, 8, 3), generator=generator, dtype=torch.uint8), labels)
        taus = torch.linspace(0, 1, 5)
        path = torch.randn(5, 4, LAYOUT.channels, 4, 4, generator=generator)
        tensors = {"states": path, "predictions": path.clone(), "taus": taus, "times": torch.stack([taus**2, taus], 1)}
        save_file(tensors | {"labels": labels[:4].clone()}, folder / "trajectory.safetensors")


PARTS = {"data": write_data, "sweep": write_sweep, "results": write_results, "samples": write_samples}
