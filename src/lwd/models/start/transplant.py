"""One LightningDiT's tensors for another: by what they mean, not by their shapes.

Every group keeps its channels by its name, every class its row by the given map, every local time its embedder. What a
new group adds begins at zero: the network begins as the function that it was, whatever the new group's latent and time.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lwd.errors import UserError
from lwd.groups import Layout
from lwd.models.lightningdit import LightningDiT
from lwd.models.record import Record, record_of
from lwd.models.start.account import Account
from lwd.models.start.times import embedders, grown_order, order_of

_SETTINGS = {
    "depth": "set model.depth",
    "width": "set model.width",
    "heads": "set model.heads",
    "patch_size": "name it in model.name",
    "mlp_ratio": "choose a network of that",
}
"""What must be equal, and what to do about it."""


def transplant(
    given: Mapping[str, Tensor],
    giver: Record,
    network: LightningDiT,
    classes: Mapping[int, int] | None = None,
    where: str = "train.init_from",
) -> tuple[dict[str, Tensor], Account]:
    """Make the tensors with which ``network`` begins as the function of ``giver``, and say what became of each.

    ``given``: the giver's state dict; neither it nor the network is changed. ``classes``: label here -> label there;
    others stay as initialised; None: the same labels. The null class is always kept. A group that only the giver has
    is left as if its latent and its time were always zero. Raises UserError, beginning with ``where``, for each misfit,
    and ValueError where ``network`` was not built in `grown_order`.
    """
    record, own = record_of(network), network.state_dict()
    old, new = giver.layout, record.layout
    _check(giver, record, where)
    if order_of(record) != (grown_order(giver, new) or new.names):
        raise ValueError(
            f"build the network with time_order={grown_order(giver, new)}, so that it can begin as {where}"
        )
    times, gone = embedders(given, own, giver, new)
    outputs = ("final_layer.linear.weight", "final_layer.linear.bias")
    made = {
        "x_embedder.weight": _by_group(given["x_embedder.weight"], old, new),
        **{
            name: _by_group(given[name].reshape(-1, old.channels, *given[name].shape[1:]), old, new).flatten(0, 1)
            for name in outputs
        },
        "y_embedder.weight": _class_table(given["y_embedder.weight"], own["y_embedder.weight"], classes, where),
        **times,
    }
    if set(old.names) - set(new.names):
        made["y_embedder.weight"] = made["y_embedder.weight"] + gone.to(made["y_embedder.weight"])
    rebuilt = () if giver.shape == record.shape else ("pos_embed",)
    shared = [name for name in own if name in given and name not in made and name not in rebuilt]
    made |= {name: given[name] for name in shared}
    made = {name: made[name] for name in own if name in made}
    for name, tensor in made.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"{where}: {name} is {tuple(tensor.shape)} there and {tuple(own[name].shape)} here; "
                "train.init_from needs the same model but for its groups, grid and classes"
            )
    return made, Account.of(given, own, made, rebuilt, _notes(giver, record, classes))


def _check(giver: Record, record: Record, where: str) -> None:
    """Raise UserError for the first misfit of sizes and groups."""
    for key, remedy in _SETTINGS.items():
        there, here = giver.arguments.get(key), record.arguments.get(key)
        if there != here:
            raise UserError(f"{where}: {key} is {there} there and {here} here; {remedy}, or start from another network")
    theirs = {group.name: group.channels for group in giver.layout.groups}
    for group in record.layout.groups:
        if theirs.get(group.name, group.channels) != group.channels:
            raise UserError(
                f"{where}: group {group.name!r} has {theirs[group.name]} channels there and {group.channels} here; "
                "a group of other channels is another one, give it another name"
            )
    if not theirs.keys() & set(record.layout.names):
        raise UserError(
            f"{where}: has the groups {giver.layout}, of which none is here ({record.layout}); name one alike"
        )


def _by_group(tensor: Tensor, old: Layout, new: Layout) -> Tensor:
    """A tensor whose axis 1 is the channels of ``old``, for those of ``new``: zeros for groups that ``old`` has not."""
    kept = dict(zip(old.names, torch.split(tensor, old.sizes, dim=1), strict=True))
    shape = list(tensor.shape)
    zeros = {g.name: tensor.new_zeros([shape[0], g.size, *shape[2:]]) for g in new.groups if g.name not in kept}
    return torch.cat([(kept | zeros)[name] for name in new.names], dim=1)


def _class_table(given: Tensor, own: Tensor, classes: Mapping[int, int] | None, where: str) -> Tensor:
    """Rows by label and the null class last: those of ``given`` by the map, else those of ``own``."""
    there, here = len(given) - 1, len(own) - 1
    if classes is None:
        if there != here:
            raise UserError(
                f"{where}: {there} classes there and {here} here; say which label there each begins as by "
                "train.init_classes={label here: label there}, or {} for new ones"
            )
        return given
    table = own.clone()
    for to, of in classes.items():
        if not (0 <= to < here and 0 <= of < there):
            label, side, count = (of, "there", there) if 0 <= to < here else (to, "here", here)
            raise UserError(f"train.init_classes: {to}: {of}: no label {label} {side}, they run from 0 to {count - 1}")
        table[to] = given[of].to(table)
    table[-1] = given[-1].to(table)
    return table


def _notes(giver: Record, record: Record, classes: Mapping[int, int] | None) -> tuple[str, ...]:
    """What differs of groups, classes and grid, in words."""
    old, new = giver.layout.names, record.layout.names
    notes = []
    if set(old) != set(new):
        parts = {
            "kept": [name for name in new if name in old],
            "new": [name for name in new if name not in old],
            "left": [name for name in old if name not in new],
        }
        notes.append("groups " + ", ".join(f"{' '.join(names)} {kind}" for kind, names in parts.items() if names))
    if classes is not None:
        notes.append(f"{len(classes)} classes kept by the map, {record.num_classes - len(classes)} new, null kept")
    if giver.shape != record.shape:
        notes.append(f"grid {'x'.join(map(str, giver.shape))} to {'x'.join(map(str, record.shape))}")
    return tuple(notes)
