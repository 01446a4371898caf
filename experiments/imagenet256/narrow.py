"""`lwd` with narrow encoders under the published names, for the smallest dry run: `python narrow.py COMMAND ...`.

The names, depths of the levels and keys of SD-VAE f16d32 stay, and so do the patches of DINOv2 and CLIP: only widths
shrink, and the transformers' depth.
"""

from __future__ import annotations

from dataclasses import replace

from lwd.cli.main import main
from lwd.encoders.vae.keys import CONFIG, MULTIPLIERS
from lwd.encoders.vision import VISION_MODELS

VAE_WIDTH = 8


def narrow() -> None:
    """From now on, in this process, the published encoders are narrow."""
    CONFIG["block_out_channels"] = tuple(VAE_WIDTH * multiplier for multiplier in MULTIPLIERS)
    CONFIG["norm_num_groups"] = VAE_WIDTH
    for name, spec in VISION_MODELS.items():
        VISION_MODELS[name] = replace(spec, width=48, depth=1, heads=2)


if __name__ == "__main__":
    narrow()
    main()
