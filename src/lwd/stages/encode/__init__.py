"""`lwd encode`: pictures to latent shards."""
