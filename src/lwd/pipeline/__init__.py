"""`LwdPipeline`: a trained model with its decoder as one diffusers pipeline. Needs the extra ``lwd[encoders]``."""

from lwd.encoders.pretrained import library

library("diffusers", "DiffusionPipeline")  # first of all, for its one clear line where there is none

from lwd.pipeline.pipeline import LwdPipeline
from lwd.pipeline.scheduler import LwdScheduler
from lwd.pipeline.transformer import LwdTransformer

__all__ = ["LwdPipeline", "LwdScheduler", "LwdTransformer"]
