"""Stage II: training a denoiser under a frozen schedule."""

from lwd.stages.train.run import choose_schedule, main_flops, run
from lwd.stages.train.settings import ScheduleChoice, TrainConfig, TrainSettings

__all__ = ["ScheduleChoice", "TrainConfig", "TrainSettings", "choose_schedule", "main_flops", "run"]
