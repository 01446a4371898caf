"""The study's tables, in Markdown: rows in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from design import StudyConfig
from stats import (
    COLLAPSED,
    LEARNED,
    OFFSET,
    SYNCHRONOUS,
    Row,
    between,
    by_seed,
    curve,
    from_extremal,
    paired,
    rate_squared,
    ratios,
    steps_to_reach,
    widest,
)

MISSING = "n/a"


@dataclass(frozen=True)
class Gain:
    """Of one cell at one budget: distance of the learned schedule over that of the synchronous one, seed by seed."""

    cell: str
    steps: int
    r2: float
    """What the semantics explain of the texture: of what the class leaves, where classes are given."""
    ratios: tuple[float, ...]


def gains(study: StudyConfig, rows: Sequence[Row], semantics: Sequence[Row]) -> list[Gain]:
    """At the first and the last budget of every cell that has both schedules."""
    explained = {row["encoder"]: row for row in semantics}
    found = []
    for name, cell in study.study.cells.items():
        for steps in dict.fromkeys((min(cell.budgets), max(cell.budgets))):
            found_ratios = tuple(ratios(rows, name, steps))
            if found_ratios and cell.encoder in explained:
                r2 = explained[cell.encoder]["r2_given_label" if cell.conditional else "r2_ridge"]
                found.append(Gain(name, steps, r2, found_ratios))
    return found


def design(study: StudyConfig) -> str:
    """What was run."""
    lines = []
    for name, cell in study.study.cells.items():
        more = [*cell.solvers, *["AutoGuidance"] * cell.guided]
        names = ", ".join(cell.variants) or "all"
        lines.append(
            [
                name,
                study.study.encoders[cell.encoder].title,
                "yes" if cell.conditional else "no",
                str(len(cell.seeds)),
                " ".join(map(str, cell.budgets)),
                names,
                ", ".join(more) or MISSING,
            ]
        )
    return table(["cell", "semantics", "classes", "seeds", "budgets (steps)", "variants", "beside dopri5"], lines)


def budgets(study: StudyConfig, rows: Sequence[Row], cell: str) -> str:
    """Table 1: every variant at every budget, mean and standard deviation over seeds; real images for scale."""
    steps = study.study.cells[cell].budgets
    lines = [
        [variant, *(spread(by_seed(rows, cell=cell, variant=variant, steps=each).values()) for each in steps)]
        for variant in _present(study, rows, cell)
    ]
    return table(["schedule", *(f"{each:,} steps" for each in steps)], lines)


def tests(study: StudyConfig, rows: Sequence[Row], cell: str) -> str:
    """Each variant against the synchronous and the offset schedule at the first and the last budget."""
    lines = []
    budgets = study.study.cells[cell].budgets
    for steps in dict.fromkeys((min(budgets), max(budgets))):
        for base in (SYNCHRONOUS, OFFSET):
            for variant in _present(study, rows, cell):
                sides = [by_seed(rows, cell=cell, variant=name, steps=steps) for name in (variant, base)]
                test = paired(*sides) if variant != base else None
                if test is not None:
                    raw = ", ".join(f"{d:+.2f}" for d in test.differences)
                    p = MISSING if test.p is None else f"{test.p:.3f}"
                    lines.append([f"{steps:,}", f"{variant} - {base}", raw, f"{test.mean:+.2f}", p, test.verdict])
    return table(["steps", "difference of distances", "by seed", "mean", "p", "verdict"], lines)


def reach(study: StudyConfig, rows: Sequence[Row], cell: str) -> str:
    """The steps at which each variant's mean reaches the final value of each of the others."""
    steps, names = study.study.cells[cell].budgets, _present(study, rows, cell)
    curves = {name: curve(rows, steps, cell=cell, variant=name) for name in names}
    lines = [[name, *(_steps(steps_to_reach(curves[name], curves[other][-1][1])) for other in names)] for name in names]
    return table(["reaches the final value of", *names], lines)


def sampling(study: StudyConfig, rows: Sequence[Row], cell: str, value: str = "frechet", digits: int = 2) -> str:
    """The last budget, by solver (and with guidance): the mean of ``value``, and its spread."""
    last, names = max(study.study.cells[cell].budgets), _present(study, rows, cell)
    ways = dict.fromkeys(
        (r["solver"], r["exact"], r["guided"]) for r in rows if r["cell"] == cell and r["steps"] == last
    )
    lines = []
    for name in names:
        line = [name]
        for solver, exact, guided in ways:
            way = {"solver": solver, "exact": exact, "guided": guided}
            line.append(spread(by_seed(rows, value, cell=cell, variant=name, steps=last, **way).values(), digits))
        lines.append(line)
    titles = [f"{solver}, guided" if guided else solver for solver, _, guided in ways]
    return table(["schedule", *titles], lines)


def encoders(study: StudyConfig, semantics: Sequence[Row]) -> str:
    """How rich each encoder's latents are."""
    keys = ("r2_ridge", "r2_mlp", "r2_given_label", "label_accuracy")
    lines = [[study.study.encoders[row["encoder"]].title, *(f"{row[key]:.3f}" for key in keys)] for row in semantics]
    titles = ["texture explained, linear", "MLP", "beyond the class, linear", "class accuracy, linear"]
    return table(["semantics", *titles], lines)


def cells(study: StudyConfig, rows: Sequence[Row], probes: Sequence[Row]) -> str:
    """The map: what lambda and which curve each cell has, and the two schedules at its first and last budget."""
    lines = []
    for name, cell in study.study.cells.items():
        found = next((row for row in probes if row["cell"] == name and row["chosen"]), None)
        exact = next((row for row in probes if row["cell"] == name and row["probe"] == "exact"), None)
        facts = (
            [f"{found['lambda']:g}", f"{found['distance_from_collapse']:.3f}"] if found else ["none stable", MISSING]
        )
        facts.append(f"{exact['distance_from_collapse']:.3f}" if exact else MISSING)
        for steps in dict.fromkeys((min(cell.budgets), max(cell.budgets))):
            base, learned = (by_seed(rows, cell=name, variant=v, steps=steps) for v in (SYNCHRONOUS, LEARNED))
            lines.append(
                [
                    name,
                    *facts,
                    f"{steps:,}",
                    *(spread(one) for one in (base.values(), learned.values(), ratios(rows, name, steps))),
                ]
            )
    titles = ["cell", "lambda", "distance from collapse", "same, exact Jacobian", "steps"]
    return table([*titles, SYNCHRONOUS, LEARNED, "their ratio"], lines)


def stiffness(study: StudyConfig, rows: Sequence[Row], probes: Sequence[Row]) -> str:
    """The main cell's schedules from the stiffest on: the texture's mean t'^2, evaluations, distance by solver."""
    main = study.study.main
    last = max(study.study.cells[main].budgets)
    mine = [row for row in rows if row["cell"] == main and row["steps"] == last and not row["guided"]]
    solvers = list(dict.fromkeys((row["solver"], row["exact"]) for row in mine))
    lines = []
    for rate, weight, variant in stiffnesses(study, rows, probes):
        nfe = by_seed(mine, "nfe", variant=variant)
        found = [by_seed(mine, variant=variant, solver=solver, exact=exact) for solver, exact in solvers]
        lines.append(
            [variant, weight, f"{rate:.2f}", spread(nfe.values(), 1), *(spread(one.values()) for one in found)]
        )
    titles = ["schedule", "lambda", "mean t'^2", "evaluations", *(solver for solver, _ in solvers)]
    return table(titles, lines)


def stiffnesses(study: StudyConfig, rows: Sequence[Row], probes: Sequence[Row]) -> list[tuple[float, str, str]]:
    """(the texture's mean t'^2, lambda or n/a, variant) of the main cell's polynomial schedules, the stiffest first."""
    by_hash = {row["schedule"]: row for row in probes}
    degree = study.probe.degree + 1
    known = {SYNCHRONOUS: 1.0, COLLAPSED: degree**2 / (2 * degree - 1)}
    found = []
    for variant in _present(study, rows, study.study.main):
        schedule = next(r["schedule"] for r in rows if r["cell"] == study.study.main and r["variant"] == variant)
        if variant in known:
            found.append((known[variant], MISSING, variant))
        elif (probe := by_hash.get(schedule)) is not None:
            jacobian = ", exact Jacobian" if probe["jacobian"] == "exact" else ""
            found.append((rate_squared(probe), f"{probe['lambda']:.3g}{jacobian}", variant))
    return sorted(found, reverse=True)


def drives(predictions: Sequence[Row]) -> str:
    """What each term gains or loses on the way from the synchronous to the extremal schedule, by cell."""
    lines = []
    for row in predictions:
        d = row["drives"]
        terms = [f"{d[name]:+.3f}" for name in ("own", "help", "harm")]
        sums = [f"{d['own'] + d['harm']:+.3f}", f"{d['help'] + d['harm']:+.3f}"]
        lines.append([row["cell"], *terms, *sums, f"{d['kinetic']:+.2f}", f"{row['estimate']:.3g}"])
    titles = ["own", "help", "harm", "stopped: own + harm", "exact: help + harm", "kinetic", "their ratio"]
    return table(["cell", *titles], lines)


def weakest(predictions: Sequence[Row], probes: Sequence[Row]) -> str:
    """The weakest stable lambda of every cell, as predicted (ideal, shrunk) and as found."""
    chosen = {row["cell"]: row["lambda"] for row in probes if row["chosen"]}
    lines = []
    for row in predictions:
        weights = [*row["weakest_stable"].values(), chosen.get(row["cell"])]
        lines.append([row["cell"], *(MISSING if weight is None else f"{weight:.3g}" for weight in weights)])
    return table(["weakest stable lambda", "ideal", "shrunk", "found"], lines)


def predicted(predictions: Sequence[Row], probes: Sequence[Row]) -> str:
    """The distances from collapse, as predicted (ideal, shrunk) and as found."""
    found = {(row["cell"], row["probe"]): row["distance_from_collapse"] for row in probes}
    lines = []
    for row in predictions:
        for one in sorted(row["probes"], key=lambda one: (one["jacobian"] == "exact", one["lambda"])):
            numbers = (one["ideal"], one["shrunk"], found[row["cell"], one["probe"]])
            jacobian = "exact" if one["jacobian"] == "exact" else "stopped"
            lines.append([row["cell"], jacobian, f"{one['lambda']:.3g}", *(f"{number:.2f}" for number in numbers)])
    return table(["distance from collapse", "Jacobian", "lambda", "ideal", "shrunk", "found"], lines)


def trust(study: StudyConfig, probes: Sequence[Row]) -> str:
    """How far the probe's answer depends on its seed and length, and whether what collapses goes to one curve."""
    lines = []
    for name in study.study.cells:
        mine = {row["probe"]: row for row in probes if row["cell"] == name}
        found = next((row for row in mine.values() if row["chosen"]), None)
        if found is None:
            continue
        seeds = [found, *(row for probe, row in mine.items() if probe.startswith("seed-"))]
        if len(seeds) > 1:
            lines.append([name, f"{len(seeds)} seeds, largest distance between two", f"{widest(seeds):.3f}"])
        lengths = sorted((row for probe, row in mine.items() if probe.startswith("steps-")), key=lambda r: r["steps"])
        main = max(study.study.cells[name].budgets)
        for row in lengths:
            text = f"{row['steps']} steps ({row['steps'] / main:.0%} of the main run) against {found['steps']}"
            lines.append([name, text, f"{between(row, found):.3f}"])
        weaker = [row for probe, row in mine.items() if probe.startswith("weaker-")]
        for row in sorted(weaker, key=lambda row: row["lambda"]):
            verdict = "collapsed" if row["collapsed"] else "not collapsed"
            lines.append([name, f"lambda {row['lambda']:.3g} ({verdict}) against tau^5", f"{from_extremal(row):.3f}"])
        if len(down := [row for row in weaker if row["collapsed"]]) > 1:
            lines.append([name, f"{len(down)} collapsed lambdas, largest distance between two", f"{widest(down):.3f}"])
    return table(["cell", "probes", "distance of curves (sup over tau)"], lines)


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Mean ± standard deviation (divisor n - 1); the value alone where there is one."""
    numbers = list(values)
    if not numbers:
        return MISSING
    mean = f"{np.mean(numbers):.{digits}f}"
    return mean if len(numbers) == 1 else f"{mean} ± {np.std(numbers, ddof=1):.{digits}f}"


def _present(study: StudyConfig, rows: Sequence[Row], cell: str) -> list[str]:
    there = {row["variant"] for row in rows if row["cell"] == cell}
    return [name for name in study.compare.variants if name in there]


def _steps(steps: float | None) -> str:
    return "not reached" if steps is None else f"{steps:,.0f}"
