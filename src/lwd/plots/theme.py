"""Colours by name, each for a light and a dark page; drawings and CSS both take them from here.

Drawings are made in stand-in colours, one per name; `lwd.plots.drawing` turns these into CSS variables, so that one
inline SVG follows the reader's colour scheme. Within `printed` they are made in the light page's own colours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SURFACES = {
    "ground": ("#faf9f7", "#131519"),
    "card": ("#ffffff", "#1a1d22"),
    "ink": ("#1c2127", "#e8eaed"),
    "muted": ("#646b75", "#a0a8b3"),
    "rule": ("#dfddd8", "#343a43"),
    "grid": ("#eceae6", "#262b32"),
    "accent": ("#1a66a8", "#74b8f2"),
}
_VARIANTS = (
    ("#7c8794", "#97a4b3"),
    ("#d47a22", "#f2a65e"),
    ("#1a6fb8", "#62b0f0"),
    ("#ab4390", "#e58dca"),
    ("#3b8b5c", "#6fc795"),
    ("#7457c4", "#b39cf2"),
    ("#a35a3a", "#dd9a7a"),
    ("#23858a", "#66c6c9"),
)
_RAMP = (("#86c9a6", "#2f8f98", "#27397c"), ("#cdf0cf", "#4fb9bb", "#7189f2"))
_RAMP_LEVELS = 12


def _mix(stops: tuple[str, ...], position: float) -> str:
    """The colour at ``position`` in [0, 1] along evenly spaced stops."""
    place = position * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    pairs = zip(*(bytes.fromhex(stop[1:]) for stop in stops[first : first + 2]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - first)):02x}" for a, b in pairs)


COLOURS: dict[str, tuple[str, str]] = {
    **_SURFACES,
    **{f"variant{i}": pair for i, pair in enumerate(_VARIANTS)},
    **{
        f"ramp{i}": (_mix(_RAMP[0], i / (_RAMP_LEVELS - 1)), _mix(_RAMP[1], i / (_RAMP_LEVELS - 1)))
        for i in range(_RAMP_LEVELS)
    },
}
"""Name -> (light, dark)."""

_STAND_IN = re.compile(r"#0100([0-9a-f]{2})")


def variant_colour(index: int) -> str:
    """The name of the colour of the variant at ``index``."""
    return f"variant{index % len(_VARIANTS)}"


def ramp_colour(index: int, count: int) -> str:
    """The name of colour ``index`` of ``count`` in sequence, from light to deep."""
    return f"ramp{round(index * (_RAMP_LEVELS - 1) / max(count - 1, 1))}"


_printing = ContextVar("printing", default=False)


@contextmanager
def printed() -> Iterator[None]:
    """Draw for a picture file within the block, in the light page's own colours."""
    token = _printing.set(True)
    try:
        yield
    finally:
        _printing.reset(token)


def stand_in(name: str) -> str:
    """The colour that stands for ``name`` in a drawing; within `printed` its own."""
    if _printing.get():
        return COLOURS[name][0]
    return f"#0100{list(COLOURS).index(name):02x}"


def with_variables(svg: str) -> str:
    """Replace every stand-in by its CSS variable."""
    names = list(COLOURS)
    return _STAND_IN.sub(lambda match: f"var(--{names[int(match[1], 16)]})", svg)


def css() -> str:
    """Write the CSS variables, for both colour schemes."""
    light, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in COLOURS.items()) for i in range(2))
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
