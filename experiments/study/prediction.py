"""What the probe should find if the latents were Gaussian: closed forms from their means and covariance alone.

With x1 of covariance S within classes, noise x0, local times A = diag(t), B = I - A:
Cov z = A S A + B^2 and Cov(u, z) = S A - B, so that the ideal velocity's energy is the squared mean and the diagonal of
Cov(u, z) Cov(z)^-1 Cov(z, u), and its loss what that leaves of Cov u = S + I. Both are tabulated over the two local
times; Algorithm 1 is then run on them with the expectation of every gradient, as tests/probe/test_probe.py does.

The probe trains its denoiser on the kinetic term, too: the minimiser of w t' |v - u|^2 + lambda t'^2 |v|^2 is not
E[u | z] but c E[u | z] with c = w / (w + lambda t'). So there are two predictions: *ideal*, of a denoiser of the flow
loss alone, and *shrunk*, of one that has found that minimiser (its c, which the network can only know on the present
curve, is taken as a constant when the curve is moved). A probe starts near the first and goes to the second. Label
dropout is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.polynomial import chebyshev, legendre
from scipy.linalg import cholesky, solve_triangular
from torch import Tensor

from design import ALGORITHM_1, StudyConfig, data_config, learning, schedule_file
from lwd.data import LatentShards
from lwd.files import read_json, write_json
from lwd.flow import group_factors
from lwd.runtime.jobs import run_jobs
from lwd.schedules import PolynomialCurve, Schedule
from lwd.schedules.collapse import distance
from lwd.stages.experiment import Experiment
from semantics import evenly

GLOBAL_TIMES, NODES, PATH = 24, 25, 8
"""Gauss-Legendre nodes of global time; Chebyshev nodes of the follower's local time; Gauss-Legendre nodes of the way
from the synchronous to the extremal schedule."""
KINDS = (("ideal", False), ("shrunk", True))
"""Denoisers, and whether they are shrunk: see above."""
PREDICTION = "prediction.json"
FLOOR = 1e-6
"""Added to the variances: a latent entry that is constant has none."""

Row = dict[str, Any]


def predict_all(study: StudyConfig) -> None:
    """A prediction for every data set whose probes are there."""
    jobs = [(study, name) for name in learning(study)] if study.study.predict else []
    run_jobs(_predict, jobs, "predict", 1, study.compare.processes, study.compute.progress)


def prediction_rows(study: StudyConfig) -> list[Row]:
    """The rows that are there."""
    files = [data_config(study, name).output / PREDICTION for name in study.study.data]
    return [dict(read_json(file)) for file in files if file.is_file()]


def _predict(job: tuple[StudyConfig, str]) -> None:
    """``drives``; and where Algorithm 1 should end at the lambda that the probes chose, by Jacobian and denoiser."""
    study, name = job
    config = data_config(study, name)
    weight = Schedule.load(schedule_file(study, name, ALGORITHM_1)).provenance["lambda"]
    asked = {"data": name, "latents": config.data_fingerprint(), "lambda": weight}
    done = config.output / PREDICTION
    if done.is_file() and read_json(done).items() >= asked.items():
        return
    table = surfaces(config, study.study.regression_images)
    ends = {
        jacobian: {kind: distance(closed_form(table, config, weight, jacobian, is_shrunk)) for kind, is_shrunk in KINDS}
        for jacobian in ("stop", "exact")
    }
    write_json(done, asked | {"drives": drives(table, config.probe.degree), "ends": ends})


@dataclass(frozen=True)
class Surfaces:
    """Of follower and leader (in this order): what Eq. 38 needs at the leader's time tau_j and the follower's time a.

    ``weights`` (J,): of tau_j in a mean over global time. Chebyshev coefficients over a in [0, 1], (J, K, 2): ``risk``
    the ideal losses, group means; ``energy`` E|v|^2. ``factors``: the groups' weights in the loss.
    """

    tau: Tensor
    weights: Tensor
    factors: Tensor
    risk: Tensor
    energy: Tensor

    def at(self, table: Tensor, a: Tensor) -> Tensor:
        """A table's values (J, 2) at follower times a (J,), differentiable in a."""
        return torch.einsum("jk,jkg->jg", _basis(a, table.shape[1]), table)


def surfaces(config: Experiment, images: int) -> Surfaces:
    """Tabulate the latents of an experiment with one group beside the leader."""
    layout, leader = config.layout, config.leader
    shards = LatentShards(config.data_path / "train", layout, flip=False, features=False)
    batch = evenly(shards, images)
    groups = layout.split(batch.x1)
    (follower,) = [name for name in layout.names if name != leader]
    x = torch.cat([groups[follower].flatten(1), groups[leader].flatten(1)], 1).double().numpy()
    labels = batch.labels.numpy()
    means = np.stack([x[labels == k].mean(0) for k in range(labels.max() + 1)])
    centred = x - means[labels]
    cov = centred.T @ centred / len(x) + FLOOR * np.eye(x.shape[1])
    weights = dict(zip(layout.names, group_factors(layout, config.probe.reduction), strict=True))
    return tabulate(
        cov, (means[labels] ** 2).mean(0), groups[follower][0].numel(), [weights[follower], weights[leader]]
    )


def tabulate(cov: Any, mean_square: Any, followers: int, factors: Sequence[float]) -> Surfaces:
    """cov (n, n) and squared means (n,) of entries, the first ``followers`` of them the follower's."""
    tau, weights = _unit_nodes(GLOBAL_TIMES)
    nodes = (chebyshev.chebpts1(NODES) + 1) / 2
    own = np.arange(len(cov)) < followers
    values = np.empty((2, GLOBAL_TIMES, NODES, 2))
    for j, b in enumerate(tau):
        for k, a in enumerate(nodes):
            explained = _explained(cov, np.where(own, a, b))
            parts = cov.diagonal() + 1 - explained, mean_square + explained
            values[:, j, k] = [[part[own].mean(), part[~own].mean()] for part in parts]
    fit = np.linalg.inv(chebyshev.chebvander(2 * nodes - 1, NODES - 1))
    risk, energy = torch.from_numpy(np.einsum("km,sjmg->sjkg", fit, values))
    known = [torch.as_tensor(each, dtype=torch.float64) for each in (tau, weights, factors)]
    return Surfaces(*known, risk, energy)


def closed_form(s: Surfaces, config: Experiment, weight: float, jacobian: str, shrunk: bool) -> PolynomialCurve:
    """Algorithm 1 with ideal or shrunk denoisers and exact expectations: rho averaged after burn-in."""
    settings = config.probe
    curve = PolynomialCurve(settings.degree).double()
    optimizer = torch.optim.AdamW(curve.parameters(), lr=settings.rho_lr, weight_decay=0.0)
    kept = []
    for step in range(settings.steps):
        t, rate = curve(s.tau)
        rates = torch.stack([rate, torch.ones_like(rate)], 1)
        omega = rates.detach() if jacobian == "stop" else rates
        c = s.factors / (s.factors + weight * rates.detach()) if shrunk else torch.ones_like(rates)
        risk, energy = s.at(s.risk, t), s.at(s.energy, t)
        flow = (omega * (risk + (1 - c).square() * energy)) @ s.factors
        kinetic = (rates.square() * c.square() * energy).sum(1)
        optimizer.zero_grad()
        ((flow + weight * kinetic) @ s.weights).backward()
        optimizer.step()
        if step >= settings.burn_in:
            kept.append(curve.rho.detach().clone())
    return PolynomialCurve.from_rho(torch.stack(kept).mean(0).float()).requires_grad_(False)


def drives(s: Surfaces, degree: int) -> dict[str, float]:
    """What each term of Eq. 38 gains or loses while the synchronous schedule is moved straight to tau^(degree + 1).

    own: the follower's loss by its own time. help: the follower's loss by the leader's time, into which the exact
    Jacobian turns that (a change of measure). harm: the leader's loss by the follower's time. kinetic: Eq. 37.
    Negative favours collapse: own + harm drives the stop-gradient's update, help + harm that of the exact Jacobian.
    """
    move, change = s.tau ** (degree + 1) - s.tau, (degree + 1) * s.tau**degree - 1
    totals = dict.fromkeys(("own", "help", "harm", "kinetic"), 0.0)
    for way, share in zip(*_unit_nodes(PATH), strict=True):
        a, rate = (s.tau + way * move).requires_grad_(), 1 + way * change
        risks, energies = s.at(s.risk, a), s.at(s.energy, a)
        follower, leader = (torch.autograd.grad(risks[:, g].sum(), a, retain_graph=True)[0] * move for g in (0, 1))
        (energy,) = torch.autograd.grad((rate.square() * energies[:, 0] + energies[:, 1]).sum(), a)
        step = {
            "own": s.factors[0] * rate * follower,
            "help": s.factors[0] * (rate * follower + change * risks[:, 0]),
            "harm": s.factors[1] * leader,
            "kinetic": energy * move + 2 * rate * change * energies[:, 0],
        }
        for name, values in step.items():
            totals[name] += float(share * (values.detach() @ s.weights))
    return totals


def _explained(cov: Any, times: Any) -> Any:
    """diag(Cov(u, z) Cov(z)^-1 Cov(z, u)) (n,) at the entries' local times (n,)."""
    scaled = cov * times
    factor = cholesky(times[:, None] * scaled + np.diag((1 - times) ** 2), lower=True)
    cross = scaled - np.diag(1 - times)
    return (solve_triangular(factor, cross.T, lower=True) ** 2).sum(0)


def _unit_nodes(count: int) -> Any:
    """Gauss-Legendre nodes and weights (count,) of a mean over [0, 1]."""
    nodes, weights = legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


def _basis(a: Tensor, count: int) -> Tensor:
    """Chebyshev polynomials T_0 ... T_(count - 1) of 2 a - 1: (J,) -> (J, count), by their recurrence."""
    x = 2 * a - 1
    basis = [torch.ones_like(x), x]
    while len(basis) < count:
        basis.append(2 * x * basis[-1] - basis[-2])
    return torch.stack(basis, 1)
