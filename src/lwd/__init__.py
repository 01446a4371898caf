"""Learning When to Denoise: learned asynchronous schedules for multi-representation latent diffusion.

`lwd.Layout`, `lwd.Group` and `lwd.Schedule` are here; a submodule (`lwd.flow`, `lwd.probe`, `lwd.sample`,
`lwd.metrics`, ...) is loaded when it is first touched.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lwd.groups import Group, Layout
    from lwd.schedules import Schedule

__version__ = "0.1.0"
__all__ = ["Group", "Layout", "Schedule", "__version__"]

_HOME = {"Group": "lwd.groups", "Layout": "lwd.groups", "Schedule": "lwd.schedules"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if not name.startswith("_") and find_spec(f"lwd.{name}") is not None:
        return import_module(f"lwd.{name}")
    raise AttributeError(f"module 'lwd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
