"""Pictures of the search for lambda: which line is whose, and that the file holds their colours."""

import pytest
import torch
from PIL import Image

from lwd.plots.curves import TAU
from lwd.plots.figures import DASHED, SOLID
from lwd.plots.sweep import Probed, curve_lines, save_sweep_curves, weight_colours
from lwd.plots.theme import COLOURS
from lwd.schedules import IdentityCurve, PolynomialCurve, Schedule


def probed(weight, rho, collapsed=False, chosen=False):
    curves = {"slow": PolynomialCurve.from_rho(torch.tensor(rho)), "fast": IdentityCurve()}
    return Probed(weight, 0.05 if collapsed else 0.5, collapsed, chosen, Schedule(curves))


PROBES = [
    probed(0.01, [-50.0, -50.0, 9.0], collapsed=True),
    probed(0.04, [0.0, 0.0, 1.0], chosen=True),
    probed(0.04, [0.0, 0.0, 2.0], chosen=True),
    Probed(0.2, 0.9, False, False, None),
]


def test_lines_of_the_learned_groups_the_first_seed_labelled():
    lines = curve_lines(PROBES)
    assert list(lines) == ["slow"]
    drawn = [(line.label, line.dash, line.width) for line in lines["slow"]]
    assert drawn == [("λ = 0.01", DASHED, 1.6), ("λ = 0.04, chosen", SOLID, 3.2), ("", SOLID, 1.6)]
    assert lines["slow"][0].y[100] == pytest.approx(0.5**3, abs=1e-12)  # tau^3, and 1e-22 of the others
    assert TAU[100] == 0.5


def test_colours_go_with_lambda_not_with_the_probe():
    colours = weight_colours(probe.kinetic_weight for probe in PROBES)
    assert list(colours) == [0.01, 0.04, 0.2] and len(set(colours.values())) == 3
    lines = curve_lines(PROBES)["slow"]
    assert [line.colour for line in lines] == [colours[0.01], colours[0.04], colours[0.04]]


def test_the_picture_has_a_panel_per_group_and_the_distances_of_all(tmp_path):
    save_sweep_curves(tmp_path / "curves.png", PROBES, collapsed_below=0.1)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (2 * 720, 576)  # two panels of 4.5 x 3.6 inches at 160 dots
        panels = [picture.convert("RGB").crop((720 * i, 0, 720 * (i + 1), 576)) for i in range(2)]
    found = [{colour for _, colour in panel.getcolors(10**6)} for panel in panels]
    colours = weight_colours(probe.kinetic_weight for probe in PROBES)
    rgb = {weight: tuple(bytes.fromhex(COLOURS[name][0][1:])) for weight, name in colours.items()}
    assert [rgb[0.04] in panel for panel in found] == [True, True]
    assert [rgb[0.2] in panel for panel in found] == [False, True]  # its schedule is gone, its distance is known
