"""Drawing: figures of curves, sweeps and samples in one style."""
