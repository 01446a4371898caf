"""Other people's ``.pt`` and ``.ckpt`` files: tensors and plain containers are kept, nothing that they name is run."""

from __future__ import annotations

import pickle
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lwd.errors import UserError


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocol 2 spell bytes; other codecs are not looked up."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in codec {encoding!r}")
    return text.encode("latin1")


_PLAIN = (dict, list, tuple, set, frozenset, int, float, complex, bool, str)
_KEPT: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    **{("builtins", kind.__name__): kind for kind in _PLAIN},
    **{("torch", name): dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)},
}
_INERT_STANDARD_MODULES = frozenset(
    (
        "abc",
        "argparse",
        "collections",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "pathlib",
        "types",
        "typing",
        "uuid",
    )
)
"""Of the standard library, what configs are made of; a checkpoint that asks for anything else of it is refused."""
_PYTHON_2 = {"__builtin__": "builtins"}


class Placeholder:
    """What stands in for an object of a class that was not loaded: it takes whatever it is given and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None:
        """Nothing."""

    extend = add = append


class _Refusal(pickle.UnpicklingError):
    """The file names something that no checkpoint needs."""


class _Unpickler(pickle.Unpickler):
    """Looks names up in `_KEPT`, never imports, and makes an inert `Placeholder` class of every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle's ``module.name`` stands for. Raises `_Refusal` for what could only be an attack."""
        module = _PYTHON_2.get(module, module)
        if (module, name) in _KEPT:
            return _KEPT[module, name]
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names and top not in _INERT_STANDARD_MODULES:
            raise _Refusal(f"{module}.{name}")
        return type(name, (Placeholder,), {"__module__": module})


def _load(file: Any, **kwargs: Any) -> Any:
    return _Unpickler(file, **kwargs).load()


_RESTRICTED = SimpleNamespace(__name__=__name__, Unpickler=_Unpickler, load=_load)
"""In the place of the `pickle` module, for `torch.load`."""


def load_foreign(path: Path) -> Any:
    """What a file written by `torch.save` holds, tensors on the CPU, memory-mapped where the format allows it.

    PyTorch's own ``weights_only`` reader first. Where it stops at a class that it does not know (an OmegaConf config, a
    Lightning callback), a reader that turns every such object into a `Placeholder`. Raises UserError for a missing or
    damaged file, and for one whose pickle asks for a function such as ``os.system``; nothing in it is ever called.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    options: dict[str, Any] = {"map_location": "cpu", "mmap": zipfile.is_zipfile(path)}
    try:
        try:
            return torch.load(path, weights_only=True, **options)
        except pickle.UnpicklingError:
            return torch.load(path, weights_only=False, pickle_module=_RESTRICTED, **options)
    except _Refusal as error:
        raise UserError(f"{path}: refused, its pickle asks for {error}; nothing in it was run") from None
    except Exception as error:  # damaged pickles and archives raise errors of every kind
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable PyTorch file, it may be cut short or damaged ({reason})") from error
