"""Asynchronous flow matching: interpolants, velocities, losses, time distributions."""

from lwd.flow.grids import on_grid
from lwd.flow.interpolant import interpolate
from lwd.flow.losses import (
    TIME_BINS,
    Jacobian,
    KineticTrains,
    Reduction,
    Terms,
    component_losses,
    cosine_direction_loss,
    flow_loss,
    group_factors,
    kinetic_energy,
    loss,
    losses_by_time,
    repa_loss,
    schedule_objective,
    weighted_loss,
)
from lwd.flow.times import TIME_DISTRIBUTIONS, TimeDistribution, logit_normal, uniform
from lwd.flow.velocity import global_velocity, score_to_velocity, velocity_to_score

__all__ = [
    "TIME_BINS",
    "TIME_DISTRIBUTIONS",
    "Jacobian",
    "KineticTrains",
    "Reduction",
    "Terms",
    "TimeDistribution",
    "component_losses",
    "cosine_direction_loss",
    "flow_loss",
    "global_velocity",
    "group_factors",
    "interpolate",
    "kinetic_energy",
    "logit_normal",
    "loss",
    "losses_by_time",
    "on_grid",
    "repa_loss",
    "schedule_objective",
    "score_to_velocity",
    "uniform",
    "velocity_to_score",
    "weighted_loss",
]
