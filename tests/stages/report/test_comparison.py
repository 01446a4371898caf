"""What the convergence table may say: who is ahead, and when the seeds do not allow to say so."""

from __future__ import annotations

import json

import pytest
from hand_made import config

from lwd.stages.report.comparison import Cell, comparison_section, verdict
from lwd.stages.report.variants import read_variants


def cell(*distances: float) -> Cell:
    return Cell(distances, None, 10.0)


def section(tmp_path, table: dict[str, tuple[float, ...]]):
    rows = [
        {"variant": v, "seed": s, "steps": 100, "frechet": d, "accuracy": 0.5, "nfe": 20.0}
        for v, distances in table.items()
        for s, d in enumerate(distances)
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    settings = config(tmp_path)
    return comparison_section(settings, read_variants(settings))


def test_spread_is_the_range_of_two_seeds_and_the_deviation_of_more():
    assert cell(1.0).spread is None and cell(1.0).spread_text == ""
    assert cell(1.0, 3.0).spread == 2.0 and cell(1.0, 3.0).spread_text == "1.00 to 3.00"
    assert cell(1.0, 2.0, 3.0).spread == pytest.approx(1.0) and cell(1.0, 2.0, 3.0).spread_text == "± 1.00"


@pytest.mark.parametrize(
    ("table", "best"),
    [
        ({"together": (5.0, 5.5), "apart": (7.0, 7.5)}, "together"),
        ({"together": (5.0, 5.5), "apart": (5.25, 5.75)}, None),
        ({"together": (5.0, 5.5), "apart": (5.5, 8.5)}, None),  # ranges touch, the spread is larger than the lead
        ({"together": (5.0, 5.5), "apart": (7.0, 7.5), "taught": (5.5, 5.75)}, None),  # ahead of one of two
        ({"together": (5.0,), "apart": (50.0,)}, None),  # one seed: no spread is known
        ({"together": (5.0, 5.5), "apart": (50.0,)}, None),
        ({"together": (9.0, 9.5, 9.25), "apart": (8.0, 8.5, 8.25)}, "apart"),
        ({"together": (5.0, 5.5)}, None),  # nothing to be better than
    ],
)
def test_the_best_is_marked_only_where_it_leads_by_more_than_the_spread(tmp_path, table, best):
    rows = section(tmp_path, table).rows
    assert [name for name, cells in rows.items() if cells[0].best] == ([best] if best else [])


def test_order_and_colours_are_the_config_s(tmp_path):
    found = section(tmp_path, {"stranger": (1.0, 2.0), "taught": (1.0, 2.0), "together": (1.0, 2.0)})
    assert list(found.rows) == ["together", "taught", "stranger"]
    assert found.colours["together"] == "variant0" and found.colours["taught"] == "variant2"
    assert len(set(found.colours.values())) == 3


def test_the_note_says_what_the_spread_is(tmp_path):
    assert "One seed" in section(tmp_path, {"apart": (1.0,)}).spread_note
    assert "of two seeds" in section(tmp_path, {"apart": (1.0, 2.0)}).spread_note
    assert "standard deviation" in section(tmp_path, {"apart": (1.0, 2.0, 4.0)}).spread_note


def test_verdict():
    far = {"a": cell(7.0, 7.5), "b": cell(5.0, 5.5)}
    assert verdict(far, 2000) == (
        "After 2\u202f000 steps the lowest mean Fréchet distance is that of b: 5.25, against 7.25 for a. "
        "Over seeds its distances (5.00 to 5.50) do not overlap with those of a."
    )
    three = {"a": cell(5.25, 6.0), "b": cell(5.0, 5.5), "c": cell(9.0, 9.5)}
    assert verdict(three, 50).endswith("(5.00 to 5.50) overlap with those of a and do not overlap with those of c.")
    assert "no telling how much of this is chance" in verdict({"a": cell(1.0), "b": cell(2.0)}, 5)
    assert "nothing was compared with it" in verdict({"a": cell(1.0, 2.0)}, 5)


def test_a_variant_that_is_not_finished_leaves_a_gap(tmp_path):
    rows = [
        {"variant": v, "seed": s, "steps": n, "frechet": d, "accuracy": None, "nfe": 20.0}
        for v, s, n, d in (("together", 0, 100, 5.0), ("together", 0, 200, 4.0), ("apart", 0, 100, 6.0))
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    settings = config(tmp_path)
    found = comparison_section(settings, read_variants(settings))
    assert found.rows["apart"][1] is None and "together reaches" in found.verdict
    assert len(found.figures) == 1  # no accuracy was measured
