"""What stages run on: the training loop, checkpoints, randomness, logs, jobs."""
