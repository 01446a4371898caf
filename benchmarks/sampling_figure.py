"""Why the kinetic term: error against evaluations for lambda from 0 to 0.4, on Gaussian data. Writes docs/sampling.png.

    PYTHONPATH=src:tests python benchmarks/sampling_figure.py

Per lambda, rho is found by Adam on Eq. 38 in closed form (the probe without its noise); then samples are drawn with
the ideal velocity, and their end states compared with dopri5's at tolerance 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from torch import Tensor

from gaussian import GaussianData
from lwd.groups import Group, Layout
from lwd.ode import integrate
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule

LAYOUT = Layout([Group("texture", 4), Group("semantic", 2)])
LAMBDAS = (0.0, 0.05, 0.1, 0.2, 0.4)
PROBE_STEPS = 800
TARGET = Path(__file__).parents[1] / "docs" / "sampling.png"


def gaussian_data() -> GaussianData:
    """Texture that is a linear function of the semantics and a little noise."""
    mixing = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.8, -0.8], [0.3, 0.9]], dtype=torch.float64)
    latent = torch.cat([mixing, torch.eye(2, dtype=torch.float64)])
    cov = 0.1 * latent @ latent.T + 0.02 * torch.diag(torch.tensor([1.0, 1, 1, 1, 0.1, 0.1], dtype=torch.float64))
    return GaussianData(LAYOUT, (1, 1), torch.zeros(6, dtype=torch.float64), cov)


def learn(data: GaussianData, kinetic_weight: float) -> Schedule:
    """The schedule that minimises Eq. 38 (semi-gradient), from the identity."""
    curve = PolynomialCurve().double()
    optimizer = torch.optim.Adam(curve.parameters(), lr=0.05)
    tau = (torch.arange(128, dtype=torch.float64) + 0.5) / 128
    for _ in range(PROBE_STEPS):
        t, rate = curve(tau)
        times, rates = torch.stack([t, tau], 1), torch.stack([rate, torch.ones_like(tau)], 1)
        flow = (rates.detach() * data.bayes_risk(times)).sum(1)
        kinetic = (rates.square() * data.ideal_energy(times)).sum(1)
        optimizer.zero_grad()
        (flow + kinetic_weight * kinetic).mean().backward()
        optimizer.step()
    return Schedule({"texture": curve, "semantic": IdentityCurve()}).requires_grad_(False)


def field(data: GaussianData, schedule: Schedule) -> Callable[[Tensor, Tensor], Tensor]:
    """The ideal global velocity (Eq. 13 with v* of Eq. 7)."""

    def velocity(z: Tensor, tau: Tensor) -> Tensor:
        times, rates = schedule(tau)
        return data.ideal_velocity(data.latent(z), times).flatten(1) * rates[:, data.owners]

    return velocity


def main() -> None:
    """Compute and draw."""
    data = gaussian_data()
    z = torch.randn(64, data.entries, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    figure = Figure(figsize=(13, 4), layout="constrained")
    curves, fixed, adaptive = figure.subplots(1, 3)
    colours = mpl.colormaps["viridis"](torch.linspace(0, 0.9, len(LAMBDAS)).numpy())
    grid = torch.linspace(0, 1, 201, dtype=torch.float64)
    for weight, colour in zip(LAMBDAS, colours, strict=True):
        schedule = learn(data, weight)
        velocity = field(data, schedule)
        exact = integrate(velocity, z, schedule.kinks, atol=1e-9, rtol=1e-9).z
        style = {"color": colour, "label": f"lambda = {weight:g}"}
        curves.plot(grid, schedule(grid)[0][:, 0], **style)
        steps = (4, 8, 16, 32, 64)
        errors = [_rms(integrate(velocity, z, (), "heun", n).z - exact) for n in steps]
        fixed.loglog([2 * n for n in steps], errors, "o-", **style)
        runs = [integrate(velocity, z, (), atol=10 ** (-k - 3), rtol=10**-k) for k in range(1, 6)]
        adaptive.loglog([float(r.nfe.double().mean()) for r in runs], [_rms(r.z - exact) for r in runs], "o-", **style)
        print(f"lambda {weight:g}: heun {errors}, dopri5 at 1e-3 {float(runs[2].nfe.double().mean()):.1f}", flush=True)
    curves.set(xlabel="global time tau", ylabel="local time of the lagging group", title="learned schedule")
    fixed.set(xlabel="evaluations per sample", ylabel="rms error of the end state", title="Heun, uniform steps")
    adaptive.set(xlabel="evaluations per sample (mean)", title="dopri5, rtol 1e-1 to 1e-5")
    for axes, ticks in ((fixed, (8, 16, 32, 64, 128)), (adaptive, (10, 20, 40, 80))):
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    for axes in (curves, fixed, adaptive):
        axes.grid(alpha=0.3)
    curves.legend()
    figure.savefig(TARGET, dpi=110)


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


if __name__ == "__main__":
    main()
