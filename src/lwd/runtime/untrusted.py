"""Other people's ``.pt`` and ``.ckpt`` files: tensors and plain containers are kept, nothing that they name is run."""

from __future__ import annotations

import errno
import pickle
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lwd.errors import UserError
from lwd.files import atomic_path


class _Refusal(pickle.UnpicklingError):
    """The file names something that no checkpoint needs."""


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocol 2 spell bytes; other codecs are not looked up."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in codec {encoding!r}")
    return text.encode("latin1")


class _Function:
    """A function for a pickle to call, on which it can set nothing."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise _Refusal(f"a change of {name}")

    def __setstate__(self, state: object) -> None:
        raise _Refusal("a change of PyTorch's functions")


_PLAIN = (dict, list, tuple, set, frozenset, int, float, complex, bool, str)
_KEPT: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _Function(_encode),
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    **{
        ("torch._utils", name): _Function(getattr(torch._utils, name))
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
    },
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


class Placeholder:
    """What stands in for an object of a class that was not loaded: it takes whatever it is given and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None:
        """Nothing."""

    extend = add = append


class _Unpickler(pickle.Unpickler):
    """Looks names up in `_KEPT`, never imports, and makes an inert `Placeholder` class of every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle's ``module.name`` stands for. Raises `_Refusal` for what could only be an attack."""
        module, name = NAME_MAPPING.get((module, name), (module, name))  # pickles of protocol 2 use Python 2's names
        module = IMPORT_MAPPING.get(module, module)
        if (module, name) in _KEPT:
            return _KEPT[module, name]
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names and top not in _INERT_STANDARD_MODULES:
            raise _Refusal(repr(f"{module}.{name}"))
        return type(name, (Placeholder,), {"__module__": module})


def _load(file: Any, **kwargs: Any) -> Any:
    return _Unpickler(file, **kwargs).load()


_RESTRICTED = SimpleNamespace(__name__=__name__, Unpickler=_Unpickler, load=_load)
"""In the place of the `pickle` module, for `torch.load`."""


def load_foreign(path: Path) -> Any:
    """What a file written by `torch.save` holds, tensors on the CPU, memory-mapped where the format allows it.

    PyTorch's own ``weights_only`` reader first. Where it stops at a class that it does not know (an OmegaConf config, a
    Lightning callback), a reader that turns every such object into a `Placeholder`; that one only takes the zip files
    of PyTorch 1.6 and later, since the code that reads the older format trusts what it reads. Raises UserError for a
    missing or damaged file, and for one whose pickle asks for a function such as ``os.system``; nothing in it is ever
    called.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        zipped = zipfile.is_zipfile(path)
        options: dict[str, Any] = {"map_location": "cpu", "mmap": zipped}
        with warnings.catch_warnings(action="ignore"):
            try:
                return torch.load(path, weights_only=True, **options)
            except pickle.UnpicklingError as error:
                if not zipped:
                    raise _Refusal("more than tensors, in PyTorch's old format") from error
                return torch.load(path, weights_only=False, pickle_module=_RESTRICTED, **options)
    except _Refusal as error:
        raise UserError(f"{path}: refused, its pickle asks for {error}; nothing in it was run") from None
    except Exception as error:  # damaged pickles and archives raise errors of every kind
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: cut short, damaged, or no PyTorch file at all ({reason})") from error


def save_foreign(path: Path, payload: Any) -> None:
    """Write what `torch.load` reads, atomically; raises OSError where that cannot be."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:  # given a path, torch.save writes its name too
        try:
            torch.save(payload, file)
        except RuntimeError as error:
            raise OSError(errno.ENOSPC, "could not be written, the disk may be full", str(path)) from error
