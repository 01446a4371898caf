"""The settings of `lwd encode`: which images, and which encoder makes which group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from lwd.config import Batch, Config, PathText
from lwd.encoders.vae import DIFFUSERS, RELEASED
from lwd.images.decode import WHITE

SMALL_VIT, RANDOM_VIT, TRANSFORMERS = "small-vit", "random-vit", "transformers"
DOWNSAMPLE, EDGES = "downsample", "edges"
PLAIN = (DOWNSAMPLE, EDGES)
"""Made without a network: nothing to align to, and few channels already."""
Level = Annotated[int, Field(ge=0, le=255)]
SAME, NONE = "semantic", "none"


class TextureSettings(Config):
    """The group that is decoded back to pixels."""

    group: str = ""
    """Which of ``groups`` it is; it must be given."""
    encoder: Literal["identity", "sd-vae-f16d32", "small-vae", "diffusers"] = "identity"
    """identity: ``factor`` x ``factor`` pixel-unshuffle; small-vae: a small convolutional VAE, trained on the spot;
    diffusers: any published autoencoder that docs/data.md lists, by its ``path``."""
    factor: PositiveInt = 2
    """Of the pixel-unshuffle: each patch of so many by so many pixels becomes channels; of small-vae (a power of two):
    so many pixels become one position, along either side."""
    path: PathText = RELEASED
    """Of the VAE: a released .ckpt, a diffusers folder, or a Hub id; of diffusers a folder or a Hub id."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.encoder == DIFFUSERS and self.path == RELEASED:
            raise ValueError("path: name the autoencoder's diffusers folder, or its Hub id (owner/name/subfolder)")
        return self


class FeatureSettings(Config):
    """A network with features per patch."""

    path: PathText | None = None
    """A local folder with the pretrained weights; None: the Hub, by the encoder's name. Of transformers it must be
    given: a folder, or a Hub id such as facebook/dinov2-small."""
    layer: PositiveInt | None = None
    """Of a pretrained encoder: after which block its features are taken, counted from 1, and with the model's final
    norm behind it where it has one for patches; null: the last."""
    resolution: PositiveInt | None = None
    """Of transformers: how many pixels along a side the model sees; null: as many as give one patch for each position
    of the grid where it was trained at many sizes (DINOv2, DINOv3, SigLIP 2 NaFlex), else its own. Patches on another
    grid are averaged or interpolated."""


class SemanticSettings(FeatureSettings):
    """The group that holds compressed patch features."""

    group: str = ""
    """Which of ``groups`` it is; it must be given."""
    encoder: str = SMALL_VIT
    """small-vit (trained on the spot, on the images' labels, or where they have one class on quarter turns), random-vit
    (the same network as it was initialised), downsample (no network: the picture at the size of the latents' grid, one
    channel for each of its colours), edges (no network: one channel, how steep the picture is), dinov2-s/b/l/g,
    clip-b16, clip-l14, or transformers: any model of a family that docs/data.md lists, by its ``path``."""
    compress: Literal["pca", "semvae"] = "pca"
    """How features become channels; downsample and edges need neither."""
    semvae: Path | None = None
    """The folder that `lwd semvae` wrote, or a released .pt."""
    pca_images: PositiveInt = 10_000
    """On how many images PCA is fitted, spread evenly over the training split."""


class RepaSettings(FeatureSettings):
    """The features that REPA aligns to: those of the semantic encoder, of another one, or none."""

    encoder: str = SAME
    """Whose features a REPA head learns: semantic, the same as the group's (of downsample: none); none; or another's
    name."""


class EncodeSettings(Config):
    """Which images become which groups."""

    dataset: PathText = "digits"
    """digits, fashion-mnist or fashion-mnist-16 (16x16 pixels); a prepared data set, path/to/FILE.safetensors; or
    images on disk: class subfolders, a folder with labels.csv, or .tar files."""
    heldout: PathText | None = None
    """Held-out images on disk; built-in and prepared data sets have their own."""
    heldout_every: int | None = Field(default=None, ge=2)
    """Of images on disk, in place of ``heldout``: of each class the n-th, the 2n-th, ... image is held out."""
    unlabelled: bool = False
    """All images of a folder and below are of one class, whatever subfolders there are."""
    size: int = Field(default=256, ge=8, le=4096)
    """Images on disk are cropped to so many pixels, as ADM does."""
    background: tuple[Level, Level, Level] = WHITE
    """On which colour (red, green, blue) images on disk are laid where they are transparent."""
    texture: TextureSettings = TextureSettings()
    semantic: SemanticSettings = SemanticSettings()
    further: tuple[SemanticSettings, ...] = ()
    """More groups, for each what ``semantic`` holds: a second encoder, say, or edges. They are not decoded either."""
    repa: RepaSettings = RepaSettings()
    batch: Batch = 64
    """Images at once."""
    shard_images: PositiveInt = 1000
    """Source images of one shard; images that are skipped leave it shorter."""
    decoders: int | None = Field(default=None, ge=0, le=256)
    """Processes that decode images on disk, for each process that encodes; null: its share of the cores, up to 8."""
    on_error: Literal["stop", "skip"] = "stop"
    """What becomes of images that cannot be read; either way unreadable.csv lists them, and what else is not taken."""
    encoder_steps: PositiveInt = 400
    """Training steps of the small ViT."""
    vae_steps: PositiveInt = 1000
    """Training steps of small-vae."""
    vae_kl: PositiveFloat = 1e-3
    """What small-vae pays for the KL of its posterior: its loss is the evidence bound under a Gaussian decoder whose
    variance is half of this, pixels reaching from -1 to 1."""
    encoder_images: PositiveInt = 10_000
    """On how many images on disk small networks are trained and examined, spread evenly over a split."""
    judge: bool = False
    """Train the classifier by which small sets are evaluated on images on disk, too; the others always get it."""
    judge_steps: PositiveInt = 400
    """Training steps of that classifier."""
    judge_distortion: NonNegativeFloat = 0.1
    """Random affine maps for the classifier alone: its features, and so the Fréchet distance, then see less noise."""

    @property
    def others(self) -> tuple[SemanticSettings, ...]:
        """All groups but the texture's."""
        return (self.semantic, *self.further)
