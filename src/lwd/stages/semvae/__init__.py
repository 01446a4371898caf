"""Training the semantic VAE on encoded features."""

from lwd.stages.semvae.loop import SemVAEConfig, SemVAESettings, run
from lwd.stages.semvae.losses import SemVAETerms, semvae_loss

__all__ = ["SemVAEConfig", "SemVAESettings", "SemVAETerms", "run", "semvae_loss"]
