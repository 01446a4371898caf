"""`LwdPipeline`: a trained model with its decoder as one diffusers pipeline. Needs the extra ``lwd[encoders]``."""

from lwd.encoders.pretrained import library

library("diffusers", "DiffusionPipeline")  # first of all, for its one clear line where there is none

from lwd.pipeline.pipeline import LwdPipeline  # noqa: E402
from lwd.pipeline.scheduler import LwdScheduler  # noqa: E402
from lwd.pipeline.transformer import LwdTransformer  # noqa: E402

__all__ = ["LwdPipeline", "LwdScheduler", "LwdTransformer"]
