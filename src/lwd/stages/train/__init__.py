"""Stage II: training a denoiser under a frozen schedule, or at the local times of every schedule."""

from lwd.stages.train.run import main_flops, run
from lwd.stages.train.settings import TrainConfig, TrainSettings, choose_schedule

__all__ = ["TrainConfig", "TrainSettings", "choose_schedule", "main_flops", "run"]
