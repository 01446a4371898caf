"""Is `lwd encode` busy encoding? And does its memory stay where it is when there are more images?

    python benchmarks/encode.py                                  # CPU: SD-VAE f16d32 and DINOv2-S, random weights
    python benchmarks/encode.py --images 4000 --semantic dinov2-b --precision bf16 --batch 128    # GPU

Makes JPEGs of 500 x 375 pixels, then runs the whole command on them in a process of its own, once with half of the
images and once with all: prints images/s (each image is encoded twice, with its mirror image), the share of the
wall time of the encoding loop that is spent inside the encoders, and the peak memory of the process and its decoders.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import DEVICE, machine, synchronise
from PIL import Image

import lwd.stages.encode.run as extract
from lwd.config import load
from lwd.encoders.composite import CompositeEncoder, Encoded
from lwd.encoders.vae import SDVAE
from lwd.encoders.vision import random_patch_encoder
from lwd.stages.experiment import Experiment

CONFIG = """
groups: [{{name: tex, channels: 32}}, {{name: sem, channels: 16}}]
leader: sem
compute: {{progress: false, precision: "{precision}"}}
encode:
  dataset: {images}
  texture: {{group: tex, encoder: sd-vae-f16d32, path: {folder}/vae.safetensors}}
  semantic: {{group: sem, encoder: {semantic}, path: {folder}/{semantic}, pca_images: 4}}
  batch: {batch}
  shard_images: {shard}
"""


def make(folder: Path, arguments: argparse.Namespace) -> None:
    """Images, random weights and a config for half and for all of the images."""
    from safetensors.torch import save_file

    rng = np.random.default_rng(0)
    for i in range(arguments.images):
        pixels = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        for name in ("all", "half") if i < arguments.images // 2 else ("all",):
            path = folder / name / "class" / f"{i:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels.save(path, quality=92)
    save_file(SDVAE.random().released_state_dict(), folder / "vae.safetensors")
    random_patch_encoder(arguments.semantic).model.save_pretrained(folder / arguments.semantic)
    for name in ("half", "all"):
        values = vars(arguments) | {"images": folder / name, "folder": folder}
        (folder / f"{name}.yaml").write_text(CONFIG.format(**values))


def run_one(config: Path) -> None:
    """Encode under ``config``, with clocks on the encoders and on the loop; prints one row."""
    inside, encode, split = [], CompositeEncoder.encode, extract.encode_split

    def timed(encoder: CompositeEncoder, images: torch.Tensor) -> Encoded:
        start = time.perf_counter()
        result = encode(encoder, images)
        synchronise()
        inside.append(time.perf_counter() - start)
        return result

    walls = []

    def timed_split(*positional: object) -> None:
        inside.clear()
        start = time.perf_counter()
        split(*positional)  # type: ignore[arg-type]
        walls.append(time.perf_counter() - start)

    CompositeEncoder.encode, extract.encode_split = timed, timed_split  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as output:
        experiment = load(Experiment, config, [f"output={output}"])
        count = len(extract.open_images(experiment.encode)["train"])
        extract.run(experiment)
    memory = [resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(
        f"{count:8d} {count / walls[0]:9.2f} {sum(inside) / walls[0]:17.1%} {memory[0]:17.2f} {memory[1]:20.2f}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--semantic", default="dinov2-s")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--shard", type=int, default=8)
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one)
        return
    print(machine())
    print(f"{DEVICE}, {arguments.semantic} and sd-vae-f16d32, batch {arguments.batch}, precision {arguments.precision}")
    print("  images  images/s   inside encoders  peak GiB, process  its largest decoder")
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), arguments)
        for which in ("half", "all"):
            command = [sys.executable, __file__, "--one", str(Path(name) / f"{which}.yaml")]
            subprocess.run(command, check=True)  # noqa: S603 - this very script


if __name__ == "__main__":
    main()
