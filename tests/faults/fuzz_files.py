"""Small real files of every format that lwd reads, and what reads them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

import lwd.stages.report.about as about
from lwd.config import load
from lwd.data import LatentShards, write_shard, write_stats
from lwd.data.encoded import read_manifest
from lwd.data.evaluation import read_evaluation
from lwd.data.samples import SampleSet
from lwd.datasets.fashion import FILES, read_idx
from lwd.datasets.prepared import read_prepared, write_prepared
from lwd.encoders.decoder import load_decoder
from lwd.encoders.semvae import SemVAE, load_semvae
from lwd.evaluation.features import FeatureSet
from lwd.files import checksum, write_json
from lwd.groups import Layout
from lwd.images.decode import flat_picture
from lwd.images.npz import read_npz, verify_npz, write_npz
from lwd.images.open import open_source
from lwd.images.tar import TarSource
from lwd.models import LightningDiT
from lwd.models.pretrained import load_model
from lwd.probe.table import read_table
from lwd.records import read_mapping
from lwd.runtime.checkpoint import load_tensors, read_state, verify
from lwd.runtime.hub import save_model
from lwd.runtime.untrusted import load_foreign
from lwd.schedules import Schedule
from lwd.stages.encode.writer import read_shard_record
from lwd.stages.evaluate.inputs import open_material
from lwd.stages.evaluate.record import Evaluation
from lwd.stages.experiment import Experiment
from lwd.stages.probe.table import on_screen
from lwd.stages.report.comparison import read_results
from lwd.stages.watch import watch
from lwd.training.log_file import read_log

LAYOUT = Layout([{"name": "tex", "channels": 4}, {"name": "sem", "channels": 2, "weight": 2.0}])
YAML = """\
output: {output}
seed: 3
groups: [{{name: tex, channels: 4}}, {{name: sem, channels: 2, weight: 2.0}}]
leader: sem
model: &m {{name: LightningDiT-Mini/1, num_classes: 10}}
compute: {{progress: false, device: cpu, log_every: 5}}
probe: {{steps: 20, burn_in: 10, batch: 8, kinetic_weight: 0.04}}
train:
  steps: 20
  schedule: {{kind: offset, delta: 0.25}}
compare: {{budgets: [10, 20], seeds: [0, 1], variants: {{a: {{schedule: {{kind: synchronous}}}}}}}}
"""


@dataclass(frozen=True)
class Material:
    """A file, and what reads it, or the folder that it lies in."""

    name: str
    path: Path
    read: Callable[[], object]


def materials(folder: Path) -> list[Material]:
    """Write all files under ``folder``."""
    made = [_tables, _manifest, _schedule, _samples, _tar, _pictures, _data, _networks, _features, _texts]
    found = [material for make in made for material in make(folder)]
    for material in found:
        material.read()  # as they are, all can be read
    return found


def _tables(folder: Path) -> list[Material]:
    row = {"kinetic_weight": 0.04, "seed": 0, "distance_from_collapse": 0.3, "mass": 0.7, "collapsed": False,
           "steps": 60, "stopped": None, "folder": "lambda-0.04",
           "curve": {"tex": [0.1, 0.3, 0.6]}, "still": False}  # fmt: skip
    cost = {"steps": 60, "planned": 60, "step_flops": 10, "main_flops": 5600, "flops": 600, "share": 0.25}
    lambdas = [{"kinetic_weight": 0.04, "stable": True, "disagreement": 0.01}]
    table = {"rows": [row], "lambdas": lambdas, "collapsed_below": 0.1, "mass_above": 0.5, "points": [0.25, 0.5, 0.75],
             "chosen": 0.04, "cost": cost}  # fmt: skip
    write_json(folder / "table.json", table)
    result = {"variant": "a", "seed": 0, "steps": 10, "frechet": 2.5, "accuracy": None, "nfe": 40.0}
    write_json(folder / "results.json", [result, {**result, "seed": 1, "accuracy": 0.5}])
    write_json(folder / "versions.json", {"lwd": "0.1.0", "torch": "2.6"})
    interval = {"low": 1.0, "high": 3.0, "standard_error": 0.5}
    limit = {"counts": [10, 20], "values": [3.0, 2.0], "infinity": 1.0, "standard_error": None}
    side = {"path": "a", "count": 20, "sha256": "0", "nfe": 40.0}
    evaluation = {"format": "lwd.evaluation/1", "metrics": {"fid": 2.0}, "intervals": {"fid": interval},
                  "extrapolations": {"fid": limit}, "details": {"fid": {"statistics": {"samples": "computed"}}},
                  "samples": side, "reference": side, "extractors": {"inception": {"published_weights": True}},
                  "settings": {"confidence": 0.95}, "seconds": {"fid": 1.0}}  # fmt: skip
    write_json(folder / "evaluation.json", evaluation)
    record = {"file": "a.safetensors", "images": 3, "labels": {"0": 1, "2": 2}, "sha256": "0", "skipped": [["x", "y"]]}
    write_json(folder / "latents_rank00_shard0000.json", record)

    def evaluated() -> object:
        from lwd.stages.evaluate.table import compare

        read_evaluation(folder / "evaluation.json")
        return compare([folder / "evaluation.json", folder / "evaluation.json"]), Evaluation.read(folder)

    return [
        Material(
            "sweep table", folder / "table.json", lambda: on_screen(read_table(folder / "table.json").model_dump())
        ),
        Material("results", folder / "results.json", lambda: read_results(folder / "results.json")),
        Material("versions", folder / "versions.json", lambda: read_mapping(folder / "versions.json", "", "")),
        Material("evaluation", folder / "evaluation.json", evaluated),
        Material("shard record", folder / "latents_rank00_shard0000.json", lambda: read_shard_record(folder, 0)),
    ]


def _manifest(folder: Path) -> list[Material]:
    split = {"images": 12, "per_class": [6, 6], "shards": [{"file": "a", "images": 12, "sha256": "0"}]}
    manifest = {"format": "lwd.data/1", "recipe": {"dataset": "x"}, "fingerprint": "0123456789ab", "dataset": "digits",
                "classes": None, "splits": {"train": split},
                "texture": {"group": "tex", "encoder": "identity", "factor": 2},
                "semantic": {"group": "sem", "explained_variance_ratio": [0.5, 0.125], "accuracy_heldout": 0.875},
                "judge": {"channels": 8, "classes": 10, "image_channels": 1, "accuracy_heldout": 0.9}}  # fmt: skip
    write_json(folder / "manifest.json", manifest)
    return [Material("manifest", folder / "manifest.json",
                     lambda: (about._data(read_manifest(folder)), load_decoder(folder)))]  # fmt: skip


def _schedule(folder: Path) -> list[Material]:
    found = []
    for family in ("polynomial", "convex-spline", "rational-quadratic", "power"):
        path = folder / f"schedule-{family}.json"
        schedule = Schedule.learnable(LAYOUT.names, "sem", family)
        schedule.provenance = {"layout": LAYOUT.to_list(), "lambda": 0.04, "seed": 0, "steps": 20, "burn_in": 10}
        schedule.save(path)

        def read(path: Path = path) -> object:
            schedule = Schedule.load(path)
            schedule.check(LAYOUT, str(path))
            return schedule(torch.linspace(0, 1, 5)), [schedule[name].formula() for name in schedule.names]

        found.append(Material("schedule", path, read))
    return found


def _samples(folder: Path) -> list[Material]:
    here = folder / "samples"
    labels = torch.arange(6)
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    write_npz(here / "images.npz", [images], labels.numpy(), (8, 8))
    save_file({"labels": labels, "seeds": labels.clone(), "nfe": labels.clone()}, here / "samples.safetensors")
    info = {"format": "lwd.samples/1", "count": 6, "formats": ["npz"], "checkpoint": "x", "schedule": "0"}
    write_json(here / "samples.json", info)

    def read() -> object:
        samples = SampleSet.read(here)
        return list(samples.images(torch.tensor([0, 5]))), open_material(here).count

    packed = folder / "packed.npz"
    np.savez_compressed(packed, arr_0=images, mu=np.zeros(3), sigma=np.eye(3))

    def arrays(path: Path) -> object:
        found = {name: array.sum() for name, array in read_npz(path).items()}
        verify_npz(path)
        return found, open_material(path).count

    return [
        *(
            Material("sample folder", here / name, read)
            for name in ("samples.json", "samples.safetensors", "images.npz")
        ),
        Material("npz", here / "images.npz", partial(arrays, here / "images.npz")),
        Material("npz, packed", packed, partial(arrays, packed)),
    ]


def _picture(form: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.effect_noise((24, 16), 40).convert(mode).save(file, form)
    return file.getvalue()


def _tar(folder: Path) -> list[Material]:
    path = folder / "images.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(3):
            members = {"png": _picture("PNG"), "json": json.dumps({"label": number, "caption": "x"}).encode()}
            for ending, data in members.items():
                entry = tarfile.TarInfo(f"{'long' * 30 if number == 2 else 'a'}/{number:04d}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))

    def read() -> object:
        source = TarSource(str(path))
        return [source.read(index) for index in range(len(source))]

    table = folder / "pictures" / "labels.csv"
    table.parent.mkdir()
    for number in range(3):
        (table.parent / f"{number}.png").write_bytes(_picture("PNG"))
    table.write_text("file,label\n0.png,cat\n1.png,dog\n2.png,cat\n")
    return [Material("tar", path, read), Material("labels.csv", table, lambda: open_source(str(table.parent)))]


def _pictures(folder: Path) -> list[Material]:
    found = []
    for form, mode in (("PNG", "LA"), ("PNG", "P"), ("JPEG", "RGB"), ("TIFF", "I;16"), ("WEBP", "RGB"), ("BMP", "L")):
        path = folder / f"one-{mode.replace(';', '')}.{form.lower()}"
        path.write_bytes(_picture(form, mode) if mode != "I;16" else _deep())
        found.append(Material("picture", path, partial(_seen, path)))
    return found


def _seen(path: Path) -> object:
    from lwd.images.decode import open_picture, to_rgb

    return to_rgb(
        open_picture(path, path.name).image
    ).size, None if "I16" in path.name or "LA" in path.name else flat_picture(path)


def _deep() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(file, "TIFF")
    return file.getvalue()


def _data(folder: Path) -> list[Material]:
    here = folder / "train"
    generator = torch.Generator().manual_seed(0)
    latents = {g.name: torch.randn(6, g.channels, 2, 2, generator=generator) for g in LAYOUT.groups}
    shard = here / "latents_rank00_shard0000.safetensors"
    twins = {name: -x for name, x in latents.items()}
    write_shard(shard, LAYOUT, latents, torch.arange(6), twins, torch.randn(6, 3, 2, 2), torch.randn(6, 3, 2, 2))
    write_stats(here, LAYOUT)

    def read() -> object:
        return LatentShards(here, LAYOUT).read(torch.arange(6), torch.ones(6, dtype=torch.bool))

    prepared = folder / "prepared.safetensors"
    pair = (torch.zeros(4, 1, 8, 8), torch.arange(4) % 2)
    write_prepared(prepared, {"train": pair, "heldout": (pair[0].clone(), pair[1].clone())})
    idx = FILES["heldout"][1]
    packed = folder / f"{idx.name}.gz"
    packed.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 39, 16]) + bytes(10_000)))

    def labels() -> object:
        from lwd.errors import UserError

        try:
            return read_idx(folder, idx)
        except UserError as error:  # these are not Fashion-MNIST's labels, of which a copy would be too much
            if "SHA-256 differs" not in str(error):
                raise
            return None

    found = [Material("shard", shard, read), Material("prepared", prepared, lambda: read_prepared(prepared))]
    found += [Material("statistics", path, read) for path in sorted(here.glob("*.pt"))]
    return [*found, Material("idx", packed, labels)]


def _networks(folder: Path) -> list[Material]:
    here = folder / "step-00000007"
    torch.manual_seed(0)
    save_model(LightningDiT(LAYOUT, 2, 3, depth=1, width=8, heads=2), here)
    sums = {name: checksum(here / name) for name in ("config.json", "model.safetensors")}
    state = {"step": 7, "recipe": {"schedule": "0", "seed": 1}, "versions": {"lwd": "0.1.0"}, "sha256": sums}
    write_json(here / "state.json", state)
    semvae = folder / "semvae"
    save_model(SemVAE(8, 2, 1, 2), semvae)
    foreign = folder / "foreign.pt"
    torch.save({"model_state_dict": {"a": torch.ones(2, 2)}, "config": "x: 1", "steps": [1, 2]}, foreign)
    return [
        Material("state", here / "state.json", lambda: verify(here, read_state(here))),
        Material("config", here / "config.json", lambda: load_model(here)),
        Material(
            "weights", here / "model.safetensors", lambda: (load_tensors(here / "model.safetensors"), load_model(here))
        ),
        Material("semvae", semvae / "config.json", lambda: load_semvae(semvae)),
        Material("pt", foreign, lambda: load_foreign(foreign)),
    ]


def _features(folder: Path) -> list[Material]:
    path = folder / "features.safetensors"
    source = {"path": "a", "count": 5, "sha256": "0"}
    FeatureSet({"name": "x"}, source, {"pool": torch.randn(5, 3)}, labels=torch.arange(5)).save(
        path, torch.device("cpu"), True
    )
    return [Material("features", path, lambda: FeatureSet.load(path))]


def _texts(folder: Path) -> list[Material]:
    run = folder / "run"
    run.mkdir()
    config = run / "config.yaml"
    config.write_text(YAML.format(output=folder / "output"))
    trace = run / "trace.jsonl"
    line = {
        "loss": 1.0,
        "flow": 0.5,
        "kinetic": 2.0,
        "grad_norm": 1.0,
        "skipped": 0.0,
        "rho_tex": [0.5] * 5,
        "curve_tex": [0.1] * 3,
    }
    block = {"images_per_s": 9.0, "loss_by_time_tex": [0.5, None], "loss_by_time_tex_count": [7, 0]}
    trace.write_text(
        "".join(json.dumps({"step": step, **line, **(block if step % 5 == 4 else {})}) + "\n" for step in range(20))
    )

    def shown() -> object:
        return read_log(trace), watch(run, once=True, console=Console(file=io.StringIO(), width=100))

    return [
        Material("yaml", config, lambda: load(Experiment, config)),
        Material("log", trace, shown),
        Material("log's config", config, shown),
    ]
