"""The unit of work of `lwd sample`: a block of images, sampled together, decoded and written in a thread.

A block's bytes depend on its settings and its number alone, so a run that was killed, or is shared out over any number
of processes, ends with the same files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lwd.data.format import shard_path
from lwd.data.samples import IMAGE_FOLDER, LATENT_FOLDER, PARTS, image_name
from lwd.data.writing import write_shard
from lwd.encoders.decoder import Decoder, decode_rgb
from lwd.errors import UserError
from lwd.files import atomic_path, writing_to
from lwd.groups import Layout
from lwd.runtime.background import Background
from lwd.runtime.checkpoint import save_tensors

Format = Literal["npz", "png", "webp", "latents"]

SHEET_IMAGES = 100
_DECODE_BATCH = 64


def part_path(folder: Path, number: int) -> Path:
    """The record of a finished block: labels, seeds, nfe, and what is still to be put together."""
    return folder / PARTS / f"{number:06d}.safetensors"


def is_whole(part: Path) -> bool:
    """Whether a part can be opened: its header says how long it must be."""
    try:
        with safe_open(part, framework="pt"):
            return True
    except SafetensorError:
        return False


def read_part(folder: Path, number: int, key: str) -> Tensor | None:
    """One tensor of a finished block; None where the block holds none of that name."""
    with safe_open(part_path(folder, number), framework="pt") as part:
        return part.get_tensor(key) if key in part.keys() else None  # noqa: SIM118 - not a dict


class BlockWriter(Background):
    """Decodes and writes finished blocks while the next one is sampled."""

    def __init__(self, folder: Path, layout: Layout, decoder: Decoder | None, formats: tuple[Format, ...]) -> None:
        super().__init__("decode")
        self._folder, self._layout, self._decoder, self._formats = folder, layout, decoder, formats

    def put(self, number: int, start: int, latents: Tensor, facts: dict[str, Tensor]) -> None:
        """Hand over block ``number``, from image ``start`` on: latents (n, C, ...) on the encoders' own scale."""
        self.start(self._write, number, start, latents, facts)

    def _write(self, number: int, start: int, latents: Tensor, facts: dict[str, Tensor]) -> None:
        try:
            self._decode_and_write(number, start, latents, facts)
        except OSError as error:
            raise UserError(
                f"{self._folder}: block {number} could not be written ({error.strerror or error}); the others are "
                "kept, and the same command goes on"
            ) from error

    @torch.inference_mode()
    def _decode_and_write(self, number: int, start: int, latents: Tensor, facts: dict[str, Tensor]) -> None:
        tensors, images = dict(facts), None
        if self._decoder is not None and (start < SHEET_IMAGES or set(self._formats) - {"latents"}):
            images = torch.cat(list(self._decoded(latents, start)))  # first: where it fails nothing is written
        if "latents" in self._formats:
            split = {name: part.cpu() for name, part in self._layout.split(latents).items()}
            write_shard(shard_path(self._folder / LATENT_FOLDER, number), self._layout, split, facts["labels"])
        if images is not None:
            if "npz" in self._formats:
                tensors["images"] = images
            for suffix in {"png", "webp"} & set(self._formats):
                self._write_files(images, start, suffix)
            if start < SHEET_IMAGES:
                tensors["sheet"] = images[: SHEET_IMAGES - start].clone()
        with atomic_path(part_path(self._folder, number)) as temporary:
            save_tensors(temporary, tensors)

    def _decoded(self, latents: Tensor, start: int) -> Iterator[Tensor]:
        """uint8 (n, H, W, 3). Raises UserError where one is not finite."""
        assert self._decoder is not None
        numbers = torch.arange(start, start + len(latents))
        for chunk, those in zip(torch.split(latents, _DECODE_BATCH), torch.split(numbers, _DECODE_BATCH), strict=True):
            yield decode_rgb(self._decoder, chunk, self._layout, those).permute(0, 2, 3, 1)

    def _write_files(self, images: Tensor, start: int, suffix: str) -> None:
        for index, image in enumerate(images.numpy(), start=start):
            target = self._folder / IMAGE_FOLDER / image_name(index, suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            with writing_to(target):
                Image.fromarray(image).save(target, lossless=True)  # a part says when they are whole
