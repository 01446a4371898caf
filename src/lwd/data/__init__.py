"""Latent shards: writing, reading, statistics, and the training data as a function of the step."""

from lwd.data.batches import Draws, StepBatch, StepBatches, StepDraws, draw
from lwd.data.shards import Batch, LatentShards, write_shard, write_stats
from lwd.data.stats import channel_stats

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
