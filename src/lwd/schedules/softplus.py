"""The logarithm of softplus, where softplus itself underflows too."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SOFTPLUS_IS_EXP_BELOW = -15.0


def log_softplus(rho: Tensor) -> Tensor:
    """log softplus(rho), finite for every finite rho; below -15 it is rho, to 2e-7."""
    return torch.where(rho < _SOFTPLUS_IS_EXP_BELOW, rho, torch.log(F.softplus(rho.clamp(min=_SOFTPLUS_IS_EXP_BELOW))))
