"""Parts of a network that do not train, by patterns of their parameters' names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from lwd.errors import UserError


def freeze(model: nn.Module, patterns: Sequence[str]) -> int:
    """Let no parameter train whose name matches one of the ``patterns``, as ``blocks.*``; returns how many it stopped.

    Raises UserError for a pattern that matches no name, and where nothing would be left to train.
    """
    parameters = dict(model.named_parameters())
    before = sum(p.requires_grad for p in parameters.values())
    for pattern in patterns:
        matching = [name for name in parameters if fnmatchcase(name, pattern)]
        if not matching:
            near = ", ".join(difflib.get_close_matches(pattern, parameters, n=3, cutoff=0.0))
            raise UserError(f"train.freeze: {pattern!r} matches no parameter; the nearest are {near}")
        for name in matching:
            parameters[name].requires_grad_(False)
    after = sum(p.requires_grad for p in parameters.values())
    if not after:
        raise UserError(f"train.freeze: {list(patterns)} match every parameter that trains; leave some out")
    return before - after
