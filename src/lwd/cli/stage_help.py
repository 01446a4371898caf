"""The help of each stage beside its first line: the files that it reads and writes, the keys that are changed most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """What one stage does, reads and writes, OUTPUT being ``output`` of its config, and its commonest keys."""

    summary: str
    reads: str
    writes: str
    keys: tuple[str, ...]
    sections: tuple[str, ...]

    def text(self) -> str:
        """The help, in Markdown: a paragraph each for what it does, reads and writes, and for its keys."""
        more = " or ".join(f"`lwd keys {section}`" for section in self.sections)
        keys = ", ".join(f"`{key}`" for key in self.keys)
        return f"{self.summary}\n\n**Reads** {self.reads}\n\n**Writes** {self.writes}\n\n**Keys**: {keys}; all: {more}."


STAGES = {
    "encode": Stage(
        "Images to latent shards, statistics and encoders, in OUTPUT/data.",
        "images: `encode.dataset`, a folder, tar files or a built-in set; weights of encoders, where they have any.",
        "data.path (OUTPUT/data): shards of latents, statistics, encoders, manifest.json.",
        ("encode.dataset", "encode.heldout", "encode.size", "encode.texture.encoder", "encode.semantic.encoder"),
        ("encode",),
    ),
    "semvae": Stage(
        "Train the semantic VAE on the features in the shards, in OUTPUT/semvae.",
        "the features in the shards of data.path, as `lwd encode` leaves them.",
        "OUTPUT/semvae: checkpoints, trace.jsonl, and model, which `encode.semantic.semvae` takes.",
        ("semvae.steps", "semvae.batch", "semvae.lr", "semvae.kl_weight"),
        ("semvae",),
    ),
    "probe": Stage(
        "Stage I at one lambda: learn a schedule, in OUTPUT/probe.",
        "data.path (OUTPUT/data).",
        "OUTPUT/probe: schedule.json, which `train.schedule.path` takes; trace.jsonl, checkpoints.",
        ("probe.steps", "probe.burn_in", "probe.kinetic_weight", "probe.batch", "model.name"),
        ("probe",),
    ),
    "sweep": Stage(
        "Stage I at several lambdas; the schedule of the weakest stable one becomes OUTPUT/schedule.json.",
        "data.path (OUTPUT/data); by the map OUTPUT/map.",
        "OUTPUT/schedule.json; OUTPUT/sweep: table.json, curves.png, a folder for each probe.",
        ("sweep.kinetic_weights", "sweep.seeds", "sweep.processes", "probe.steps", "probe.burn_in"),
        ("sweep", "probe"),
    ),
    "train": Stage(
        "Stage II: train a denoiser under a schedule, in OUTPUT/train/NAME.",
        "data.path (OUTPUT/data); OUTPUT/schedule.json, unless `train.schedule` names another.",
        "OUTPUT/train/NAME: step-... (checkpoints), trace.jsonl, config.yaml.",
        ("train.steps", "train.batch", "train.lr", "train.schedule", "train.name", "model.name"),
        ("train", "model"),
    ),
    "map": Stage(
        "Losses of a network of joint times (train.times) over all pairs of local times, in OUTPUT/map.",
        "the newest checkpoint of OUTPUT/train/NAME; data.path.",
        "OUTPUT/map: map.safetensors, map.json, map.png.",
        ("train.name", "map.images", "map.points", "map.batch"),
        ("map",),
    ),
    "score": Stage(
        "Compare schedules on one joint-time network and its map, training nothing, into OUTPUT/score.",
        "the newest checkpoint of OUTPUT/train/NAME, OUTPUT/map, data.path.",
        "OUTPUT/score: score.json, pictures, and with --suggest suggested.json.",
        ("score.schedules", "score.suggest", "score.samples", "train.name"),
        ("score",),
    ),
    "sample": Stage(
        "Sample from a checkpoint, into OUTPUT/samples. `-c FOLDER` of `lwd export`: that model, into runs/NAME.",
        "the newest checkpoint of OUTPUT/train/NAME, or `sample.checkpoint`; the decoder beside data.path.",
        "OUTPUT/samples/NAME: images.npz, grid.png, samples.safetensors.",
        (
            "sample.num",
            "sample.checkpoint",
            "sample.schedule",
            "sample.guidance.kind",
            "sample.solver",
            "sample.formats",
        ),
        ("sample",),
    ),
    "report": Stage(
        "Draw everything that OUTPUT holds into OUTPUT/report.html.",
        "whatever OUTPUT holds; what is missing is left out.",
        "OUTPUT/report.html, one file with its pictures inside.",
        ("output",),
        ("train", "sample"),
    ),
}
