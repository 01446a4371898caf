"""Solvers of ordinary differential equations, each sample with steps of its own."""
