"""Learning When to Denoise: learned asynchronous schedules for multi-representation latent diffusion."""

__version__ = "0.1.0"
