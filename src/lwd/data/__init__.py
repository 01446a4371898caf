"""Latent shards: writing, reading, statistics, and the training data as a function of the step."""

from lwd.data.batches import Draws, StepBatch, StepBatches, StepDraws, draw
from lwd.data.shards import Batch, LatentShards
from lwd.data.stats import channel_stats
from lwd.data.writing import write_shard, write_stats

__all__ = [
    "Batch",
    "Draws",
    "LatentShards",
    "StepBatch",
    "StepBatches",
    "StepDraws",
    "channel_stats",
    "draw",
    "write_shard",
    "write_stats",
]
