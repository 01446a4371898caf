"""`lwd encode`: images -> latent shards, statistics, and a manifest that says how they came about."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lwd.data.encoded import MANIFEST, read_manifest
from lwd.data.format import is_shard
from lwd.data.remote.folder import RemoteFolder
from lwd.data.remote.listing import write_listing
from lwd.data.remote.publish import Publisher
from lwd.datasets.builtin import DATASETS
from lwd.datasets.prepared import Split
from lwd.encoders.composite import CompositeEncoder, Encoded
from lwd.errors import UserError
from lwd.files import checksum, remove, write_json
from lwd.images.crop import CropBatch, CroppedImages
from lwd.images.decode import WHITE
from lwd.images.sheets import to_unit
from lwd.images.walk import files_in, folders_in, summary
from lwd.records import read_mapping
from lwd.run import RunConfig, write_run_files
from lwd.runtime.lock import LOCK, alone_in
from lwd.runtime.preemption import InTime
from lwd.runtime.processes import Processes
from lwd.runtime.progress import progress_bar
from lwd.stages.encode.begun import BEGUN_BY, check_begun
from lwd.stages.encode.encoders import Networks, assemble, prepare
from lwd.stages.encode.feed import ImagesOrFiles, image_loader, image_shape, name_of, open_images
from lwd.stages.encode.manifest import UNREADABLE, finish, write_unreadable
from lwd.stages.encode.settings import EncodeSettings
from lwd.stages.encode.writer import ShardWriter, read_shard_record, shards_of

TWINS = "twins"
"""The recipe's key, False where `data.flip` is: shards then hold no mirrored images."""
STARTED = "recipe.json"
"""Written before anything else: an unfinished folder is gone on with under the same recipe alone."""


class EncodeConfig(RunConfig):
    """Everything `run` reads."""

    encode: EncodeSettings = EncodeSettings()


def run(config: EncodeConfig) -> Path:
    """Encode every split into OUTPUT/data (or data.path); returns that folder.

    Where data.path is a URL, all is copied there, too, shard by shard. Shards are shared out over the processes; a
    killed run goes on with those that are missing. Data that was encoded under the same settings is left as it is.
    Raises UserError for settings that do not fit the images or groups, for a folder or a URL that holds anything else,
    and for unreadable images where ``on_error`` is "stop".
    """
    folder, processes = config.encoded_path, Processes(config.compute)
    publisher = _publisher(config)
    _check_groups(config)
    images = open_images(config.encode)
    recipe = _recipe(config, images)
    if _finished(folder, recipe):
        processes.say(f"already encoded: {folder}")
        if publisher is not None and processes.is_main:
            publisher.begin()
            _publish(publisher, processes)
        processes.barrier()
        return folder
    networks = assemble(config.encode, config.layout, processes, images["train"])
    processes.barrier()
    with alone_in(folder) if processes.is_main else nullcontext():
        if processes.is_main and not _finished(folder, recipe):  # again: another run may have ended meanwhile
            _start(folder, recipe)
            check_begun(folder, config.encode, networks, image_shape(images["train"])[1])
        if publisher is not None and processes.is_main:
            publisher.begin()
        _encode(config, folder, recipe, images, networks, processes, publisher)
    return folder


def _start(folder: Path, recipe: dict[str, Any]) -> None:
    """An empty folder, or one that the same settings began."""
    if (folder / STARTED).is_file() and _begun(folder) != recipe:
        # An earlier try of other settings that left no shard (`_finished` refuses others).
        for path in sorted(folder.iterdir(), key=lambda path: path.name == STARTED):
            if path.name != LOCK:
                remove(path)
    for leftover in folder.rglob(".*.tmp"):  # of a run that was killed while it wrote
        remove(leftover)
    write_json(folder / STARTED, recipe)


def _encode(
    config: EncodeConfig,
    folder: Path,
    recipe: dict[str, Any],
    images: dict[Split, ImagesOrFiles],
    networks: Networks,
    processes: Processes,
    publisher: Publisher | None,
) -> None:
    """All splits' shards and what goes with them, unless they are there."""
    processes.barrier()
    in_time, train = processes.in_time(), images["train"]
    encoders = prepare(config.encode, config.layout, config.seed, folder, processes, train, networks, in_time)
    for split, source in images.items():
        encode_split(config, folder / split, source, encoders, processes, in_time, publisher)
        in_time.end(str(folder))
    processes.barrier()
    if processes.is_main:
        write_run_files(config, folder)
        finish(folder, config.layout, config.encode, recipe, images, encoders)
        remove(folder / BEGUN_BY)
        _list(folder, processes, publisher is not None)
        if publisher is not None:
            _publish(publisher, processes)
        if found := read_manifest(folder).texture.reconstruction:
            psnr = "exact" if found.psnr is None else f"PSNR {found.psnr:.1f} dB"
            processes.say(
                f"small-vae: {found.images} {found.split} images come back within {found.rmse:.1f} of 255 grey levels "
                f"(root mean square; {psnr}), KL {found.kl:.0f} nats per image"
            )
    _say_what_was_left_out(images, processes)
    processes.barrier()


def _list(folder: Path, processes: Processes, published: bool) -> None:
    """For those who read the data from afar; where it cannot be listed that is an error only if it is copied, too."""
    try:
        for link in write_listing(folder).links:
            processes.say(f"{link}: a link, which is not listed or copied")
    except UserError as error:
        if published:
            raise
        processes.say(f"not listed to be read from afar: {error}")


def _publisher(config: EncodeConfig) -> Publisher | None:
    url = config.data.path
    return Publisher(config.encoded_path, RemoteFolder(url), STARTED) if isinstance(url, str) else None


def _publish(publisher: Publisher, processes: Processes) -> None:
    sent = publisher.finish()
    processes.say(f"{'copied to' if sent else 'already at'} {publisher.remote.shown}")


def check(config: EncodeConfig) -> None:
    """Raise UserError for all that `run` would refuse before its work begins; writes nothing."""
    _check_groups(config)
    images = open_images(config.encode)
    if not _finished(config.encoded_path, _recipe(config, images)):
        assemble(config.encode, config.layout, Processes(config.compute), images["train"])


def encode_split(
    config: EncodeConfig,
    folder: Path,
    images: ImagesOrFiles,
    encoders: CompositeEncoder,
    processes: Processes,
    in_time: InTime,
    publisher: Publisher | None = None,
) -> None:
    """This process's share of a split's shards, those that are not there yet. Batches never cross shards, so that a
    shard's content depends neither on what was there nor on how many processes there are."""
    settings = config.encode
    shards = shards_of(len(images), settings.shard_images)
    mine = range(processes.rank, len(shards), processes.world)
    todo = [number for number in mine if read_shard_record(folder, number) is None]
    batches = [list(shards[n][i : i + settings.batch]) for n in todo for i in range(0, len(shards[n]), settings.batch)]
    total = sum(len(shards[n]) for n in mine)
    show, done = processes.is_main and processes.compute.progress, total - sum(map(len, batches))
    folder.mkdir(parents=True, exist_ok=True)
    with (
        ShardWriter(folder, config.layout, publisher) as writer,
        progress_bar(f"encode {folder.name}", total, done, show) as advance,
    ):
        shard = _Shard()
        for batch in image_loader(images, batches, settings.decoders):
            shard.add(batch, images, encoders, processes.device, config.data.flip)
            if shard.skipped and settings.on_error == "stop":
                report = folder.parent / UNREADABLE
                write_unreadable(report, [(folder.name, *entry) for entry in shard.skipped])
                name, error = shard.skipped[0]
                raise UserError(
                    f"{folder.name}: {name}: {error}; listed, with {len(shard.skipped) - 1} more so far, in "
                    f"{report}; encode.on_error=skip leaves such images out"
                )
            advance(len(batch.labels))
            number = int(batch.positions[-1]) // settings.shard_images
            if int(batch.positions[-1]) == shards[number][-1]:
                writer.put(number, shard.parts, torch.cat(shard.labels), shard.skipped, shard.animated)
                shard = _Shard()
                if number != todo[-1] and in_time.leave():
                    break


@dataclass
class _Shard:
    """What has been encoded of a shard: (images, mirrored images or None) by batch, their labels, (name, error) of the
    rest, and of how many images the first of several frames was taken."""

    parts: list[tuple[Encoded, Encoded | None]] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    animated: int = 0

    def add(
        self, batch: CropBatch, images: ImagesOrFiles, encoders: CompositeEncoder, device: torch.device, flip: bool
    ) -> None:
        """Encode the good images of a batch, and with ``flip`` their mirrored twins."""
        good = torch.tensor([error is None for error in batch.errors])
        for position, error in zip(batch.positions.tolist(), batch.errors, strict=True):
            if error is not None:
                name = name_of(images, position)
                self.skipped.append((name, error.removeprefix(f"{name}: ")))
        self.labels.append(batch.labels[good])
        self.animated += int(batch.animated.sum())
        if not bool(good.any()):
            return
        x = to_unit(batch.images[good].to(device, non_blocking=True))
        self.parts.append((_to_cpu(encoders.encode(x)), _to_cpu(encoders.encode(x.flip(-1))) if flip else None))


def _to_cpu(encoded: Encoded) -> Encoded:
    groups = {name: latents.cpu() for name, latents in encoded.groups.items()}
    return Encoded(groups, None if encoded.features is None else encoded.features.cpu())


def _check_groups(config: EncodeConfig) -> None:
    """Raise UserError unless the groups are the texture, the semantic one and the further ones."""
    settings, layout = config.encode, config.layout
    further = [part.group for part in settings.further]
    if sorted(layout.names) != sorted([settings.texture.group, settings.semantic.group, *further]):
        more = f" and further {further}" if further else ""
        raise UserError(
            f"encode: texture.group {settings.texture.group!r}, semantic.group {settings.semantic.group!r}{more} must "
            f"be the groups {list(layout.names)}; encode.further makes a third one"
        )


def _say_what_was_left_out(images: dict[Split, ImagesOrFiles], processes: Processes) -> None:
    for split, source in images.items():
        if isinstance(source, CroppedImages) and (left_out := source.source.left_out):
            processes.say(f"{split}: {len(left_out)} files left out ({summary(left_out)}), listed in {UNREADABLE}")


def _recipe(config: EncodeConfig, images: dict[Split, ImagesOrFiles]) -> dict[str, Any]:
    """What decides every byte of the shards."""
    ignored = {"on_error", "decoders", "dataset", "heldout", "heldout_every", "unlabelled"}
    ignored |= config.encode.at_default("further", "encoder_images", "judge", "vae_steps", "vae_kl")
    if config.encode.background == WHITE:
        ignored.add("background")  # recipes written before there was one must compare equal
    names = {split: _identity(config.encode.dataset, source) for split, source in images.items()}
    exclude: dict[str, Any] = dict.fromkeys(ignored, True)
    for part in ("semantic", "repa"):
        exclude[part] = getattr(config.encode, part).at_default("layer", "resolution")
    settings = config.encode.model_dump(mode="json", exclude=exclude)
    precision = config.compute.precision
    without_twins = {} if config.data.flip else {TWINS: False}
    groups = config.layout.to_list()
    return {"seed": config.seed, "groups": groups, "images": names, **settings, "precision": precision, **without_twins}


def _identity(dataset: str, images: ImagesOrFiles) -> str:
    """What tells these images from others: a digest of them where they come from disk, else the data set's name."""
    if isinstance(images, CroppedImages):
        return images.source.fingerprint()
    if dataset in DATASETS:
        return dataset
    return checksum(Path(dataset))


def _begun(folder: Path) -> dict[str, Any]:
    return read_mapping(folder / STARTED, "the settings of `lwd encode`", f"remove {folder} and encode again")


def _finished(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether the folder holds these latents whole; raises UserError where it holds anything else."""
    if not folder.exists() or (folder.is_dir() and all(path.name == LOCK for path in folder.iterdir())):
        return False
    if not folder.is_dir() or not ((folder / MANIFEST).is_file() or (folder / STARTED).is_file()):
        raise UserError(f"{folder}: holds other files; choose another output or data.path")
    whole = (folder / MANIFEST).is_file()
    present = read_manifest(folder).recipe if whole else _begun(folder)
    shards = any(files_in(folder / name, is_shard) for name in folders_in(folder))
    if whole and present.get(TWINS, True):
        recipe = {key: value for key, value in recipe.items() if key != TWINS}  # twins that are not read do no harm
    if whole and TWINS not in recipe and present == {**recipe, TWINS: False}:
        raise UserError(f"{folder}: encoded without mirrored twins; set data.flip=false, or choose another output")
    if present != recipe and (whole or shards):
        raise UserError(f"{folder}: encoded with other settings or images; choose another output or remove it")
    missing = [s for s in recipe["images"] if not files_in(folder / s, is_shard)]
    return whole and not missing
