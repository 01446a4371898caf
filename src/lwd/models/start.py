"""Starting a network from another one's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from lwd.errors import UserError
from lwd.models.pretrained import fingerprint, weights_folder
from lwd.runtime.checkpoint import STATE, load_tensors, read_state, verify
from lwd.runtime.hub import WEIGHTS


@dataclass(frozen=True)
class Start:
    """What a network began with: the weights' ``fingerprint``, and how many tensors were taken, are new, were left."""

    fingerprint: str
    taken: int
    new: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        words = [f"{self.taken} tensors taken"]
        words += [f"{len(self.new)} new ({self.new[0]}, ...)"] if self.new else []
        words += [f"{len(self.left)} left ({self.left[0]}, ...)"] if self.left else []
        return ", ".join(words)


def start_from(model: nn.Module, source: Path) -> Start:
    """Fill ``model`` with the averaged weights of a checkpoint or model folder, tensor by name.

    A tensor that only one of the two has stays as it was initialised, or is left (a projector for REPA features that
    only one was trained with). Raises UserError where a tensor has another shape, and where none is shared.
    """
    weights = weights_folder(source)
    if (source / STATE).is_file():
        verify(source, read_state(source), *(() if weights == source else (weights.name,)))
    given, own = load_tensors(weights / WEIGHTS), model.state_dict()
    shared = [name for name in own if name in given]
    if not shared:
        raise UserError(f"{source}: no tensor of the network there has a name of this one's; it is another network")
    for name in shared:
        if given[name].shape != own[name].shape:
            raise UserError(
                f"{source}: {name} is {tuple(given[name].shape)} there and {tuple(own[name].shape)} here; "
                "train.init_from needs the same model, groups, grid and number of classes"
            )
    model.load_state_dict({name: given[name] for name in shared}, strict=False)
    new, left = (tuple(name for name in one if name not in other) for one, other in ((own, given), (given, own)))
    return Start(fingerprint(source), len(shared), new, left)
