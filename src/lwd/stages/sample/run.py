"""`lwd sample`: any number of samples from a checkpoint, on any number of processes, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lwd.data.encoded import MANIFEST
from lwd.data.samples import FACTS, FORMAT, IMAGE_FOLDER, INFO, LATENT_FOLDER, NPZ, PARTS, RECIPE, SHEET, SampleSet
from lwd.encoders.decoder import Decoder, load_decoder
from lwd.encoders.vae import load_vae
from lwd.errors import UserError
from lwd.files import atomic_path, remove, write_json
from lwd.images.npz import write_npz
from lwd.images.sheets import save_grid, to_unit
from lwd.models.pretrained import fingerprint, newest_checkpoint
from lwd.records import read_mapping
from lwd.run import write_run_files
from lwd.runtime.checkpoint import first_difference, save_tensors, versions
from lwd.runtime.lock import LOCK, alone_in
from lwd.runtime.preemption import InTime
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.sample.numbered import labels_of
from lwd.sample.path import TRAJECTORY
from lwd.schedules import Schedule
from lwd.stages.sample.blocks import BlockWriter, is_whole, part_path, read_part
from lwd.stages.sample.pictures import PICTURE, write_trajectory
from lwd.stages.sample.sampler import Sampler, open_sampler
from lwd.stages.sample.settings import SampleConfig, SampleSettings

MADE = (INFO, FACTS, SHEET, PARTS, NPZ, TRAJECTORY, PICTURE, IMAGE_FOLDER, LATENT_FOLDER)
"""All that a run makes but for what the folder is known by, `RECIPE`: that stays while they are cleared away."""


def run(config: SampleConfig) -> Path:
    """Sample ``sample.num`` images; returns the folder, which `lwd.data.samples.SampleSet` reads.

    Finished blocks are found again; samples made under other settings are kept and refused, unless ``compute.resume``
    is off. Raises UserError for input that does not fit.
    """
    settings = config.sample
    checkpoint = settings.checkpoint or newest_checkpoint(config.trained)
    folder = config.output / "samples" / (settings.name or f"{checkpoint.parent.name}-{checkpoint.name}")
    processes = Processes(config.compute)
    sampler = open_sampler(config, checkpoint, processes)
    labels = labels_of(settings.labels, settings.num, sampler.model)
    decoder = decoder_of(config, processes.device)
    recipe = recipe_of(config, checkpoint, sampler.schedule)
    with alone_in(folder) if processes.is_main else nullcontext():
        if processes.is_main:
            _prepare(folder, recipe, config)
        processes.barrier()
        if (folder / INFO).is_file():
            SampleSet.read(folder)
            processes.say(f"{folder}: finished before")
            return folder
        blocks = torch.split(torch.arange(settings.num), settings.block)
        in_time = processes.in_time()
        _sample_blocks(config, processes, sampler, decoder, labels, blocks, folder, in_time)
        in_time.end(str(folder))
        processes.barrier()
        if processes.is_main:
            if settings.trace:
                _trace(config, sampler, decoder, labels, folder)
            _finish(folder, len(blocks), settings, {"checkpoint": str(checkpoint), "schedule": sampler.schedule.hash()})
        processes.barrier()
    return folder


def _sample_blocks(
    config: SampleConfig,
    processes: Processes,
    sampler: Sampler,
    decoder: Decoder | None,
    labels: Tensor,
    blocks: Sequence[Tensor],
    folder: Path,
    in_time: InTime,
) -> None:
    """This process's share of the blocks that are not there yet, each decoded while the next one is sampled."""
    seeds = sampler.seeds()
    mine = [n for n in range(len(blocks)) if n % processes.world == processes.rank]
    missing = [n for n in mine if not part_path(folder, n).is_file()]
    total, left = (sum(len(blocks[n]) for n in some) for some in (mine, missing))
    show = processes.is_main and config.compute.progress
    with (
        BlockWriter(folder, config.layout, decoder, config.sample.formats) as writer,
        progress_bar(f"sample {folder.name}", total, total - left, show) as advance,
    ):
        for number in in_time.of(missing):
            block = blocks[number]
            samples = sampler.sample(labels[block], seeds[block], advance)
            facts = {"labels": labels[block].clone(), "seeds": seeds[block].clone(), "nfe": samples.nfe.cpu()}
            writer.put(number, int(block[0]), sampler.statistics.destandardise(samples.latents), facts)


def _trace(config: SampleConfig, sampler: Sampler, decoder: Decoder | None, labels: Tensor, folder: Path) -> None:
    some = slice(0, config.sample.trace)
    path = sampler.trajectory(labels[some], sampler.seeds()[some])
    write_trajectory(folder, path, labels[some], decoder, sampler.layout, sampler.statistics)


def _prepare(folder: Path, recipe: dict[str, Any], config: SampleConfig) -> None:
    """An empty folder, or one that the same settings began."""
    begun = folder / RECIPE
    half_written = set(folder.glob(f".{RECIPE}.*.tmp"))
    if not begun.is_file() and any(path.name != LOCK for path in {*folder.iterdir()} - half_written):
        raise UserError(f"{folder}: holds other files than samples; choose another sample.name, or move them away")
    empty = not (folder / INFO).is_file() and not any((folder / PARTS).glob("*.safetensors"))
    if begun.is_file() and (empty or not config.compute.resume):
        for name in MADE:
            remove(folder / name)
    elif begun.is_file() and (changed := first_difference(_begun(begun), recipe)):
        raise UserError(
            f"{folder}: holds samples of other settings: {changed}; choose another sample.name, or replace them with "
            "compute.resume=false"
        )
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink()  # of a run that was killed while it wrote
    for part in (folder / PARTS).glob("*.safetensors"):
        if not is_whole(part):
            part.unlink()  # made again
    if (folder / INFO).is_file():
        remove(folder / PARTS)  # of a run that was killed at its very end
        return
    write_json(begun, recipe)  # first: a kill after any other file would leave a folder that is not ours
    write_run_files(config, folder)


def _begun(path: Path) -> dict[str, Any]:
    return read_mapping(path, "the settings of `lwd sample`", "make the samples again with compute.resume=false")


def _finish(folder: Path, count: int, settings: SampleSettings, facts: dict[str, Any]) -> None:
    """Put the parts together; ``samples.json`` comes last."""
    tensors = {
        key: torch.cat([_tensor(folder, number, key) for number in range(count)]) for key in ("labels", "seeds", "nfe")
    }
    if "npz" in settings.formats:
        height, width = _tensor(folder, 0, "images").shape[1:3]
        blocks = (_tensor(folder, number, "images").numpy() for number in range(count))
        write_npz(folder / NPZ, blocks, tensors["labels"].numpy().astype(np.int64), (height, width))
    with atomic_path(folder / FACTS) as temporary:
        save_tensors(temporary, tensors)
    sheets = [sheet for number in range(count) if (sheet := read_part(folder, number, "sheet")) is not None]
    if sheets:
        save_grid(to_unit(torch.cat(sheets).permute(0, 3, 1, 2)), folder / SHEET)
    nfe = tensors["nfe"].double()
    info = {
        "format": FORMAT,
        "count": settings.num,
        "formats": list(settings.formats),
        **facts,
        "nfe": {"mean": float(nfe.mean()), "min": int(nfe.min()), "max": int(nfe.max())},
        "versions": versions(),
    }
    write_json(folder / INFO, info)
    remove(folder / PARTS)


def _tensor(folder: Path, number: int, key: str) -> Tensor:
    tensor = read_part(folder, number, key)
    assert tensor is not None, key
    return tensor


def recipe_of(config: SampleConfig, checkpoint: Path, schedule: Schedule) -> dict[str, Any]:
    """What decides the bytes: every setting but where they go, and the weights themselves."""
    settings, guidance = config.sample, config.sample.guidance
    weak = guidance.weak if guidance.kind in ("auto", "both") else None
    return {
        "sample": settings.model_dump(mode="json", exclude={"name", "checkpoint"}),
        "weights": fingerprint(checkpoint),
        "weak_weights": None if weak is None else fingerprint(weak),
        "schedule": schedule.hash(),
        "data": config.data_fingerprint(),
        "compute": config.compute.model_dump(mode="json", include={"precision", "tf32", "compile", "device"}),
    }


def decoder_of(config: SampleConfig, device: torch.device) -> Decoder | None:
    """The decoder by config, else by manifest; None where only latents are wanted and there is none."""
    chosen = config.sample.decoder
    if chosen is not None:
        if chosen.group is not None and chosen.group not in config.layout.names:
            raise UserError(f"sample.decoder.group: {chosen.group!r} is not one of {list(config.layout.names)}")
        vae = load_vae(chosen.path, device)
        fitting = [group.name for group in config.groups if group.channels == vae.channels]
        if chosen.group is None and len(fitting) != 1:
            raise UserError(
                f"sample.decoder.group: {len(fitting)} groups have the VAE's {vae.channels} channels; name one"
            )
        return Decoder(chosen.group or fitting[0], vae)
    if (config.data_path / MANIFEST).is_file():
        return load_decoder(config.data_path, device)
    if set(config.sample.formats) != {"latents"}:
        raise UserError(
            f"{config.data_path}: no {MANIFEST}, so no decoder is known; set sample.decoder.path to the VAE's weights, "
            "or sample.formats=[latents]"
        )
    return None
