"""What is drawn of the scores."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lwd.plots.drawing import save_png
from lwd.plots.sweep import scale_weights
from lwd.plots.theme import stand_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(file: Path, record: Mapping[str, Any]) -> None:
    """Write the differences of every schedule from the first, with two standard errors, and Algorithm 1 on the map."""
    rows = record["rows"]
    panels = [
        partial(_bars, rows=rows, key="loss_more", title=f"held-out loss L, more than {record['against']}"),
        partial(_bars, rows=rows, key="nats_more", title="held-out nats J, more"),
    ]
    if rows[0]["distance"] is not None:
        panels.append(partial(_distances, rows=rows))
    panels.append(partial(_diagram, points=record["diagram"]))
    save_png(file, panels, width=4.3, height=3.7)


def _bars(axes: Axes, rows: list[dict[str, Any]], key: str, title: str) -> None:
    _points(axes, rows, [row[key]["value"] for row in rows], [2 * row[key]["error"] for row in rows])
    axes.set_title(title, fontsize=9.5)


def _distances(axes: Axes, rows: list[dict[str, Any]]) -> None:
    found = [row["distance"] for row in rows]
    _points(axes, rows, [one["more"] for one in found], [2 * one["error"] for one in found])
    axes.set_title("Fréchet distance of samples, more", fontsize=9.5)


def _points(axes: Axes, rows: list[dict[str, Any]], values: list[float], errors: list[float]) -> None:
    places = list(range(len(rows)))[::-1]
    axes.axvline(0, color=stand_in("rule"), linewidth=1)
    axes.errorbar(values, places, xerr=errors, fmt="o", color=stand_in("ink"), markersize=4, linewidth=1.2)
    axes.set_yticks(places, [row["name"][-18:] for row in rows])


def _diagram(axes: Axes, points: list[dict[str, Any]]) -> None:
    for jacobian, dash in (("stop", "-"), ("exact", "--")):
        some = [point for point in points if point["jacobian"] == jacobian]
        weights = [point["kinetic_weight"] for point in some]
        axes.plot(
            weights, [p["distance_from_collapse"] for p in some], f"o{dash}", color=stand_in("ink"), label=jacobian
        )
    scale_weights(axes, sorted({point["kinetic_weight"] for point in points}))
    axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel("distance from collapse")
    axes.set_title("Algorithm 1 on the map", fontsize=9.5)
    axes.legend(handlelength=3.2)
