"""The solvers by their coefficients: Runge-Kutta methods, and Adams-Bashforth's second order with variable steps.

One step of size h from z, with slopes K_j = V(tau + c_j h, z + h sum_i A_ji K_i), has the dense output
z(tau + theta h) = z + h sum_j (sum_p dense_jp theta^p) K_j for theta in [0, 1]; theta = 1 is the step itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

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
    return _METHODS[solver]


def ab2_dense(ratio: float) -> Tensor:
    """Dense coefficients (2, 2) of a step ``ratio`` times as long as the one before; ratio 0: Euler's first step."""
    return _matrix([[1, ratio / 2], [0, -ratio / 2]])


def _vector(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _matrix(rows: list[list[float]]) -> Tensor:
    return torch.stack([_vector(row) for row in rows])


def _dopri5() -> Method:
    """Dormand and Prince (1980), Table 2, with Shampine's (1986) dense output: SciPy's fractions, without SciPy."""
    last: list[float] = [
        35 / 384,
        0,
        500 / 1113,
        125 / 192,
        -2187 / 6784,
        11 / 84,
        0,
    ]  # the seventh stage is at the new state
    stages: list[list[float]] = [
        [0, 0, 0, 0, 0, 0, 0],
        [1 / 5, 0, 0, 0, 0, 0, 0],
        [3 / 40, 9 / 40, 0, 0, 0, 0, 0],
        [44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0],
        last,
    ]
    dense = _matrix(
        [
            [1, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432],
            [0, 0, 0, 0],
            [0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799],
            [0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072],
            [0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632],
            [0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844],
            [0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423],
        ]
    )
    dense[:, 0] += _vector(last) - dense.sum(1)  # rounding: theta = 1 must be the step
    error = [-71 / 57600, 0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40]
    return Method(_vector([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1]), _matrix(stages), dense, _vector(error))


_METHODS: dict[Solver, Method] = {
    "dopri5": _dopri5(),
    "heun": Method(_vector([0, 1]), _matrix([[0, 0], [1, 0]]), _matrix([[1, -1 / 2], [0, 1 / 2]])),
    "midpoint": Method(_vector([0, 1 / 2]), _matrix([[0, 0], [1 / 2, 0]]), _matrix([[1, -1], [0, 1]])),
    "euler": Method(_vector([0]), _matrix([[0]]), _matrix([[1]])),
    "ab2": Method(_vector([0]), _matrix([[0, 0]]), ab2_dense(1.0), multistep=True),
}
