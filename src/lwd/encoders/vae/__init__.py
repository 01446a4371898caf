"""Image autoencoders through diffusers: any published one, and SD-VAE f16d32 in the files of its release."""

from lwd.encoders.vae.autoencoder import CLASSES, DIFFUSERS, Autoencoder, blank_autoencoder
from lwd.encoders.vae.released import RELEASED, SDVAE, blank_vae, load_vae

__all__ = ["CLASSES", "DIFFUSERS", "RELEASED", "SDVAE", "Autoencoder", "blank_autoencoder", "blank_vae", "load_vae"]
