"""From a function that draws on one pair of axes to an inline SVG or a PNG; nothing global is left behind.

matplotlib is imported when something is drawn: a stage that may draw starts without it.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from markupsafe import Markup, escape

from lwd.files import atomic_path
from lwd.plots.theme import printed, stand_in, with_variables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

P = ParamSpec("P")


def _style() -> dict[str, Any]:
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9.0,
        "text.color": stand_in("ink"),
        "text.parse_math": False,  # names may have a $
        "axes.edgecolor": stand_in("rule"),
        "axes.facecolor": "none",
        "axes.labelcolor": stand_in("muted"),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.use_mathtext": False,
        "axes.unicode_minus": True,
        "figure.facecolor": "none",
        "grid.color": stand_in("grid"),
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "legend.handlelength": 1.8,
        "lines.linewidth": 1.7,
        "lines.solid_capstyle": "round",
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "lwd",
        "xtick.color": stand_in("rule"),
        "xtick.labelcolor": stand_in("muted"),
        "ytick.color": stand_in("rule"),
        "ytick.labelcolor": stand_in("muted"),
    }


@dataclass(frozen=True)
class Drawing:
    """An inline SVG, drawn when a template shows it: what cannot be read for a page is said before anything is drawn.

    ``label`` is what a screen reader says; sizes in inches, of which only the ratio to the font size matters.
    """

    draw: Callable[[Axes], None]
    label: str
    width: float
    height: float

    def __html__(self) -> Markup:
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(_style()):
            figure = Figure(figsize=(self.width, self.height), layout="constrained")
            self.draw(figure.add_subplot())
            file = io.StringIO()
            unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(file, format="svg", metadata=unsaid)
        return _inline(file.getvalue(), self.label)


def picture(
    label: str, width: float = 4.5, height: float = 3.6
) -> Callable[[Callable[Concatenate[Axes, P], None]], Callable[P, Drawing]]:
    """Decorate ``draw(axes, ...)``: the result takes the same arguments without the axes and returns the `Drawing`."""

    def decorate(draw: Callable[Concatenate[Axes, P], None]) -> Callable[P, Drawing]:
        @functools.wraps(draw)
        def prepared(*args: P.args, **kwargs: P.kwargs) -> Drawing:
            return Drawing(lambda axes: draw(axes, *args, **kwargs), label, width, height)

        return prepared

    return decorate


def save_png(
    path: Path,
    panels: Sequence[Callable[[Axes], None]],
    width: float = 4.5,
    height: float = 3.6,
    columns: int | None = None,
) -> None:
    """Write a PNG of ``panels``, each drawn on its own axes, ``columns`` of them side by side (all unless given); sizes
    in inches of one panel."""
    import matplotlib
    from matplotlib.figure import Figure

    with printed(), matplotlib.rc_context(_style()):
        across = len(panels) if columns is None else min(columns, len(panels))
        down = -(-len(panels) // across)
        figure = Figure(figsize=(width * across, height * down), layout="constrained")
        for number, draw in enumerate(panels, 1):
            draw(figure.add_subplot(down, across, number))
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=160, facecolor=stand_in("card"), metadata={"Software": None})


def _inline(svg: str, label: str) -> Markup:
    """A whole SVG file -> an element for an HTML page, in the page's fonts and colours, sized by the page."""
    opening = re.search(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert opening is not None and box is not None, "matplotlib writes an <svg> with a viewBox"
    body = svg[opening.end() :]
    body = re.sub(r"<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[\w.]+_\d+"', "", body)
    body = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--sans)", body)
    body = re.sub(r"\n\s*", "\n", body)
    head = f'<svg {box[0]} role="img" aria-label="{escape(label)}">'
    return Markup(with_variables(head + body))  # noqa: S704 - matplotlib has escaped what it drew
