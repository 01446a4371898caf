"""Gaussian data of two groups, and schedules under which its flow is easy and hard to integrate."""

import torch

from gaussian import GaussianData
from lwd.groups import Group, Layout
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule

LAYOUT = Layout([Group("tex", 2), Group("sem", 1)])
DATA = GaussianData.random(LAYOUT, seed=3)


def learned(*rho):
    return Schedule({"tex": PolynomialCurve.from_rho(torch.tensor(rho)), "sem": IdentityCurve()})


SCHEDULES = {
    "synchronous": Schedule.synchronous(LAYOUT.names),
    "offset": Schedule.offset(LAYOUT.names, "sem"),
    "learned": learned(-1.0, 0.5, 1.0, -2.0, 0.3),
    "near-extremal": learned(-9.0, -9.0, -9.0, -9.0, 5.0),
}
