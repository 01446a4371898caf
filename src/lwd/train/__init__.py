"""Stage II: training a denoiser under a frozen schedule."""

from lwd.train.cost import main_flops
from lwd.train.loop import ScheduleChoice, TrainConfig, TrainSettings, choose_schedule, run

__all__ = ["ScheduleChoice", "TrainConfig", "TrainSettings", "choose_schedule", "main_flops", "run"]
