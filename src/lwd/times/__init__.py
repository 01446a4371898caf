"""How local times are drawn in training: with any density along a schedule, or of all groups jointly."""

from lwd.times.along import AlongSchedule, Draw, Uncorrected
from lwd.times.densities import Beta, Density, Histogram, LogitNormal, Uniform
from lwd.times.joint import Band, Independent, MeanBeta, Mixture

__all__ = [
    "AlongSchedule",
    "Band",
    "Beta",
    "Density",
    "Draw",
    "Histogram",
    "Independent",
    "LogitNormal",
    "MeanBeta",
    "Mixture",
    "Uncorrected",
    "Uniform",
]
