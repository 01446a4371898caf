"""The network that another one starts from, and the start itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from lwd.errors import UserError
from lwd.files import checksum
from lwd.models.lightningdit import LightningDiT
from lwd.models.pretrained import fingerprint, weights_folder
from lwd.models.record import Record, read_record, record_of
from lwd.models.sfd import load_sfd_checkpoint
from lwd.models.start.account import Account
from lwd.models.start.transplant import transplant
from lwd.runtime.checkpoint import STATE, find_checkpoints, load_tensors, read_state, verify
from lwd.runtime.hub import WEIGHTS


@dataclass(frozen=True)
class Giver:
    """A network to start from: where it is from, how it was built, its tensors and the ``fingerprint`` of these."""

    where: Path
    record: Record
    tensors: Mapping[str, Tensor]
    fingerprint: str


def read_giver(source: str | Path) -> Giver:
    """Read the averaged weights of a checkpoint, a training run's newest, a model folder, or a ``.pt`` file of SFD's.

    Raises UserError where there is none, or it is damaged.
    """
    source = Path(source)
    if source.is_dir() and (found := find_checkpoints(source)):
        source = found[max(found)]
    if source.is_file():
        model = load_sfd_checkpoint(source)
        return Giver(source, record_of(model), model.state_dict(), checksum(source)[:12])
    weights = weights_folder(source)
    if (source / STATE).is_file():
        verify(source, read_state(source), *(() if weights == source else (weights.name,)))
    return Giver(source, read_record(weights), load_tensors(weights / WEIGHTS), fingerprint(source))


def start_from(model: nn.Module, giver: Giver, classes: Mapping[int, int] | None = None) -> Account:
    """Fill ``model`` with the weights of ``giver``: a LightningDiT by meaning (`transplant`), others tensor by name.

    ``classes``: LightningDiT's labels here, and which label there each begins as. By name, a tensor that only one of
    the two has stays as it was initialised, or is left. Raises UserError, in one line, where the two do not fit.
    """
    if isinstance(model, LightningDiT) and giver.record.network is None:
        made, account = transplant(giver.tensors, giver.record, model, classes, str(giver.where))
    else:
        if classes is not None:
            raise UserError("train.init_classes: where a LightningDiT begins as another one only; leave it out")
        made, account = _by_name(giver, model)
    model.load_state_dict(made, strict=False)
    return account


def _by_name(giver: Giver, model: nn.Module) -> tuple[dict[str, Tensor], Account]:
    """The tensors whose names both have. Raises UserError where none is shared, and for other shapes."""
    own = model.state_dict()
    made = {name: giver.tensors[name] for name in own if name in giver.tensors}
    if not made:
        raise UserError(
            f"{giver.where}: no tensor of the network there has a name of this one's; it is another network"
        )
    for name, tensor in made.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"{giver.where}: {name} is {tuple(tensor.shape)} there and {tuple(own[name].shape)} here; "
                "train.init_from needs the same model, groups, grid and number of classes of a network of your own"
            )
    return made, Account.of(giver.tensors, own, made)
