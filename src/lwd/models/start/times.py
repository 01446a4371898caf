"""Embeddings of local times when groups come and go: the order of the grown network, and its embedders' tensors.

Embeddings share out the condition's width, so one more would make all others narrower, and no narrower MLP is the same
function. A group that comes is therefore *added*: an embedder of the whole width, whose last layer begins at zero.
Where a concatenated group goes, those that stay become added ones, each still writing only the channels it had.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from lwd.groups import Layout
from lwd.models.embedders import ADDED, FREQUENCIES, split_order, time_shares
from lwd.models.record import Record

EMBEDDER = "t_embedder.by_group"


def order_of(record: Record) -> tuple[str, ...]:
    """The time order of a LightningDiT."""
    return tuple(record.arguments.get("time_order") or record.layout.names)


def grown_order(giver: Record, layout: Layout) -> tuple[str, ...] | None:
    """The ``time_order`` of a LightningDiT of ``layout`` that begins as ``giver``; None: the layout's order."""
    joined, added = split_order(order_of(giver))
    if not set(joined) <= set(layout.names):
        joined, added = (), (*joined, *added)
    added = tuple(name for name in added if name in layout.names)
    new = tuple(name for name in layout.names if name not in (*joined, *added))
    order = (*joined, *(f"{ADDED}{name}" for name in (*added, *new)))
    return None if order == layout.names else order


def embedders(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], giver: Record, layout: Layout
) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors of all groups' embedders, and what those that are left add to the condition (width,) at time 0.

    Of a group that is new, the last layer is zero. ``given`` and ``own``: the state dicts of ``giver`` and of the
    network of ``layout``, built in `grown_order`.
    """
    joined, added = split_order(order_of(giver))
    width = given["y_embedder.weight"].shape[1]
    places = time_shares(joined, width) | dict.fromkeys(added, slice(0, width))
    made, gone = dict[str, Tensor](), torch.zeros(width, dtype=given["y_embedder.weight"].dtype)
    for name, place in places.items():
        old = {key: given[f"{EMBEDDER}.{name}.mlp.{key}"] for key in ("0.weight", "0.bias", "2.weight", "2.bias")}
        if name not in layout.names:
            gone[place] += _at_zero(old)
            continue
        new = {key: own[f"{EMBEDDER}.{name}.mlp.{key}"] for key in old}
        fitting = old if old["0.bias"].shape == new["0.bias"].shape else _widened(old, new, place)
        made |= {f"{EMBEDDER}.{name}.mlp.{key}": tensor for key, tensor in fitting.items()}
    for name in set(layout.names) - places.keys():
        last = (f"{EMBEDDER}.{name}.mlp.2.weight", f"{EMBEDDER}.{name}.mlp.2.bias")
        made |= {key: torch.zeros_like(own[key]) for key in last}
    return made, gone


def _widened(old: Mapping[str, Tensor], new: Mapping[str, Tensor], place: slice) -> dict[str, Tensor]:
    """An embedder of the whole width that writes what ``old`` did to ``place``, and zero elsewhere.

    Its further hidden units are those of ``new``, and begin with no weight in the output, so that they can learn.
    """
    made = {key: tensor.clone() for key, tensor in new.items()}
    hidden = len(old["0.bias"])
    made["0.weight"][:hidden], made["0.bias"][:hidden] = old["0.weight"], old["0.bias"]
    made["2.weight"].zero_()[place, :hidden] = old["2.weight"].to(made["2.weight"])
    made["2.bias"].zero_()[place] = old["2.bias"].to(made["2.bias"])
    return made


def _at_zero(mlp: Mapping[str, Tensor]) -> Tensor:
    """What an embedder gives for time 0, where the cosines are 1 and the sines 0."""
    angles = torch.cat([torch.ones(FREQUENCIES // 2), torch.zeros(FREQUENCIES // 2)]).to(mlp["0.weight"])
    return F.linear(F.silu(F.linear(angles, mlp["0.weight"], mlp["0.bias"])), mlp["2.weight"], mlp["2.bias"])
