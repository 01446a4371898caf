"""The solvers by their coefficients: Runge-Kutta methods, and Adams-Bashforth's second order with variable steps.

One step of size h from z, with slopes K_j = V(tau + c_j h, z + h sum_i A_ji K_i), has the dense output
z(tau + theta h) = z + h sum_j (sum_p dense_jp theta^p) K_j for theta in [0, 1]; theta = 1 is the step itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Solver = Literal["dopri5", "heun", "midpoint", "euler", "ab2"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)


@dataclass(frozen=True)
class Method:
    """Coefficients of a solver, float64: ``nodes`` c (n,), ``stages`` A (n, k), ``dense`` (k, p), and ``error`` (k,)
    of an adaptive one.

    k slopes are kept: the n stages', and the last step's of a ``multistep`` method. An adaptive method's last stage is
    the next step's first slope ("first same as last").
    """

    nodes: Tensor
    stages: Tensor
    dense: Tensor
    error: Tensor | None = None
    multistep: bool = False

    @property
    def evaluations(self) -> int:
        """Number of velocities per step, beside an adaptive method's first one."""
        return len(self.nodes) - (self.error is not None)


def method(solver: Solver) -> Method:
    """The coefficients of a solver by name.

    dopri5: Dormand-Prince 5(4), SciPy's numbers, order 5. heun: the explicit trapezoidal rule, midpoint: both order 2.
    euler: order 1. ab2: order 2 with one evaluation a step, the line through the last two slopes integrated exactly
    (DEIS' tAB and iPNDM of that order, in global time); its ``dense`` here is that of two equal steps.
    """
    return _dopri5() if solver == "dopri5" else _FIXED[solver]


def ab2_dense(ratio: float) -> Tensor:
    """Dense coefficients (2, 2) of a step ``ratio`` times as long as the one before; ratio 0: Euler's first step."""
    return _matrix([[1, ratio / 2], [0, -ratio / 2]])


def _matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@cache
def _dopri5() -> Method:
    from scipy.integrate import RK45  # half a second to import, which every stage would wait for

    last = np.append(RK45.B, 0.0)  # the seventh stage is at the new state
    stages = np.vstack([np.pad(RK45.A, ((0, 0), (0, 2))), last])
    dense = RK45.P.copy()
    dense[:, 0] += last - dense.sum(1)  # rounding: theta = 1 must be the step
    nodes = np.append(RK45.C, 1.0)
    c, a, b, e = map(torch.from_numpy, (nodes, stages, dense, RK45.E))
    return Method(c, a, b, e)


_FIXED: dict[Solver, Method] = {
    "heun": Method(_matrix([[0, 1]])[0], _matrix([[0, 0], [1, 0]]), _matrix([[1, -1 / 2], [0, 1 / 2]])),
    "midpoint": Method(_matrix([[0, 1 / 2]])[0], _matrix([[0, 0], [1 / 2, 0]]), _matrix([[1, -1], [0, 1]])),
    "euler": Method(_matrix([[0]])[0], _matrix([[0]]), _matrix([[1]])),
    "ab2": Method(_matrix([[0]])[0], _matrix([[0, 0]]), ab2_dense(1.0), multistep=True),
}
