"""Stage II: training a denoiser under a frozen schedule."""

from lwd.stages.train.run import ScheduleChoice, TrainConfig, TrainSettings, choose_schedule, main_flops, run

__all__ = ["ScheduleChoice", "TrainConfig", "TrainSettings", "choose_schedule", "main_flops", "run"]
