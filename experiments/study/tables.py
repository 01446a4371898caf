"""The study's tables, in Markdown: rows in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from design import ALGORITHM_1, EXACT, LEARNED, Key, Metric, StudyConfig, learning, measurements, way_of
from stats import FEWEST_SEEDS, Difference, Row, Tested, by_seed, difference, key_of, rank_correlation, tested

MISSING = "n/a"
SCORES = {
    "loss": "held-out loss L",
    "nats": "excess nats J",
    "distance": "joint network's own distance",
    "flow": "the paper's L_flow",
    "kinetic": "the paper's R_kin",
}
"""What the joint network says of a path; the least is best."""
METRICS: dict[Metric, tuple[str, int]] = {
    "frechet": ("Fréchet distance", 2),
    "accuracy": ("accuracy", 3),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
}
"""What is measured on samples: its title, and the digits that are shown."""


@dataclass(frozen=True)
class Results:
    """All that a preset left: its config, rows, machine and costs."""

    study: StudyConfig
    rows: Sequence[Row]
    probes: Sequence[Row]
    scores: Sequence[Row]
    semantics: Sequence[Row]
    predictions: Sequence[Row]
    costs: Mapping[str, Mapping[str, float]]
    """Processor seconds by data set and part, as `learn.costs`."""
    facts: Mapping[str, Any]

    @property
    def data(self) -> list[str]:
        """The data sets of which something was measured, in the design's order."""
        measured = {row["data"] for row in self.rows}
        return [name for name in self.study.study.data if name in measured]

    @property
    def learned(self) -> list[str]:
        """Those among them on which schedules are looked for."""
        return [name for name in learning(self.study) if name in self.data]

    @cached_property
    def tested(self) -> list[Tested]:
        """Every hypothesis of the preset, the primary one first: bootstrapped once, and asked for all over a page."""
        return tested(self.study, self.rows)

    def values(self, key: Key, value: str = "frechet") -> dict[int, float]:
        """By seed."""
        return {seed: row[value] for seed, row in by_seed(self.rows, key).items() if row[value] is not None}


def ways(results: Results) -> list[Key]:
    """All that was measured, in the design's order."""
    measured = {key_of(row) for row in results.rows}
    return [key for key in dict.fromkeys(map(way_of, measurements(results.study))) if key in measured]


def everything(results: Results) -> str:
    """A line for each way: means over seeds of whatever was measured."""
    lines = []
    for key in ways(results):
        data, path, density, corrected, steps, solver, guided = key
        words = [data, path, density.replace("_", "-"), "yes" if corrected else "no", f"{steps:,}", solver]
        seeds = results.values(key)
        numbers = [spread(results.values(key, metric).values(), digits) for metric, (_, digits) in METRICS.items()]
        numbers.append(spread(results.values(key, "nfe").values(), 0))
        lines.append([*words, "yes" if guided else "no", str(len(seeds)), *numbers])
    titles = ["data", "path", "density", "weights t'", "steps", "solver", "guided", "seeds"]
    return table([*titles, *(title for title, _ in METRICS.values()), "evaluations"], lines)


def hypotheses(results: Results) -> str:
    """What was expected and what was found, the primary one first."""
    lines = [
        [
            f"**{one.says}**" if one.primary else one.says,
            METRICS[one.metric][0],
            one.expected,
            interval(one.found, METRICS[one.metric][1]),
            MISSING if one.found is None else str(len(one.found.each)),
            MISSING if one.adjusted is None else _p(one.adjusted),
            one.verdict,
        ]
        for one in results.tested
    ]
    return table(["hypothesis", "difference of", "expected", "found (95 %)", "seeds", "p", "verdict"], lines)


def against_synchronous(results: Results) -> str:
    """Every path against the synchronous one, all else equal."""
    lines = []
    for key in (key for key in ways(results) if key[1] != "synchronous"):
        found = {metric: less_synchronous(results, key, metric) for metric in METRICS}
        if (distance := found["frechet"]) is not None:
            words = [key[0], key[1], key[2].replace("_", "-"), f"{key[4]:,}", key[5], "yes" if key[6] else "no"]
            numbers = [interval(one, METRICS[metric][1]) for metric, one in found.items()]
            lines.append([*words, numbers[0], _p(distance.p), *numbers[1:]])
    first, *others = (title for title, _ in METRICS.values())
    titles = ["data", "path", "density", "steps", "solver", "guided", f"{first} (95 %)", "its p, unadjusted"]
    return table([*titles, *others], lines)


def less_synchronous(results: Results, key: Key, metric: Metric) -> Difference | None:
    """What was measured less that of the synchronous path, all else equal."""
    base = (key[0], "synchronous", *key[2:])
    return difference(by_seed(results.rows, key), by_seed(results.rows, base), metric)


@dataclass(frozen=True)
class Ranked:
    """The paths of one data set in which scores and retrained networks meet: distances (P, S) over common seeds."""

    paths: list[str]
    scores: dict[str, list[float]]
    truth: np.ndarray[Any, np.dtype[np.float64]]


def ranked(results: Results, data: str) -> Ranked | None:
    """Under the exact solver, unguided, logit-normal, at the budget at which most paths were trained, of paths with
    enough seeds; None: too few of either. Raises ValueError for an unknown data set."""
    if data not in results.study.study.data:
        raise ValueError(f"no data set {data!r}")
    scored = {row["path"]: row for row in results.scores if row["data"] == data}
    keys = [k for k in ways(results) if k[0] == data and k[2:4] == ("logit_normal", True) and k[5:] == ("exact", False)]
    budgets = [key[4] for key in keys]
    if not budgets:
        return None
    budget = max(set(budgets), key=lambda steps: (budgets.count(steps), steps))
    found = {key[1]: results.values(key) for key in keys if key[4] == budget and key[1] in scored}
    found = {path: values for path, values in found.items() if len(values) >= FEWEST_SEEDS}
    seeds = sorted(set.intersection(*map(set, found.values()))) if found else []
    if len(found) < 4 or len(seeds) < FEWEST_SEEDS:
        return None
    names = {name for name in SCORES if all(scored[path][name] is not None for path in found)}
    scores = {name: [scored[path][name] for path in found] for name in SCORES if name in names}
    return Ranked(list(found), scores, np.array([[found[path][seed] for seed in seeds] for path in found]))


@dataclass(frozen=True)
class Rule:
    """What a rule chooses: the path, its distances (S,), their mean less the best path's, processor seconds."""

    title: str
    path: str
    reached: np.ndarray[Any, np.dtype[np.float64]]
    less: float
    price: float | None


def chosen(results: Results, data: str) -> dict[str, Rule]:
    """Every rule whose path was trained, by a short name: a path's own, or of the score that is to be least."""
    found = ranked(results, data)
    if found is None:
        return {}
    cost = results.costs[data]
    probes, joint = cost.get("by_probes"), cost.get("on_the_map")
    takes: dict[str, tuple[str, str, float | None]] = {
        "offset:0.3": ("by hand: offset:0.3", "offset:0.3", 0.0),
        "synchronous": ("none: synchronous", "synchronous", 0.0),
    }
    takes |= {path: (path, path, joint if path.startswith("map") else probes) for path in LEARNED}
    for name, values in found.scores.items():
        if name in ("loss", "nats", "distance"):
            takes[name] = (f"least {SCORES[name]} of the paths", found.paths[int(np.argmin(values))], joint)
    rows = {path: found.truth[number] for number, path in enumerate(found.paths)}
    best = min(row.mean() for row in rows.values())
    return {
        name: Rule(title, path, rows[path], float(rows[path].mean() - best), price)
        for name, (title, path, price) in takes.items()
        if path in rows
    }


def rules(results: Results, data: str) -> str:
    """Which path each rule takes, what its networks reach, by how much more than the best one's, at what cost."""
    if not (found := chosen(results, data)):
        return MISSING
    lines = [
        [one.title, one.path, spread(one.reached), f"{one.less:+z.2f}", _seconds(one.price)] for one in found.values()
    ]
    seeds = len(next(iter(found.values())).reached)
    titles = ["rule", "its path", f"Fréchet distance, {seeds} seeds", "less the best path's", "processor time"]
    return table(titles, lines)


def _seconds(price: float | None) -> str:
    return MISSING if price is None else f"{price:,.0f} s" if price else "0"


def correlations(results: Results, data: str) -> str:
    """Each score's rank correlation with the retrained networks' distances."""
    found = ranked(results, data)
    if found is None:
        return MISSING
    lines = []
    for name, values in found.scores.items():
        whole, low, high = rank_correlation(values, found.truth)
        lines.append([SCORES[name], f"{whole:.2f} ({low:.2f} to {high:.2f})"])
    paths, seeds = found.truth.shape
    return table(["score of the joint network", f"rank correlation, {paths} paths, {seeds} seeds"], lines)


def paths(results: Results, data: str) -> str:
    """The scored paths: scores beside what retrained networks reach."""
    found = ranked(results, data)
    if found is None:
        return MISSING
    columns = [f"{SCORES[name]}" for name in found.scores]
    lines = [
        [path, *(f"{values[number]:.3f}" for values in found.scores.values()), spread(found.truth[number])]
        for number, path in enumerate(found.paths)
    ]
    return table(["path", *columns, "retrained"], lines)


def learned(results: Results) -> str:
    """Where every lambda and every learned path ended."""
    lines = [
        [
            row["data"],
            row["path"] or "probe",
            MISSING if row["lambda"] is None else f"{row['lambda']:.3g}",
            MISSING if row["distance"] is None else f"{row['distance']:.3f}{'*' * bool(row.get('collapsed'))}",
        ]
        for row in results.probes
    ]
    return table(["data", "curve", "lambda", "distance from collapse (* collapsed)"], lines)


def predicted(results: Results) -> str:
    """What each term of the objective gains on the way to collapse; where Algorithm 1 should end, and where it did."""
    found = {(row["data"], row["path"]): row["distance"] for row in results.probes}
    lines = []
    for row in results.predictions:
        d = row["drives"]
        line = [row["data"], *(f"{d[name]:+.3f}" for name in ("own", "help", "harm"))]
        line += [f"{d['own'] + d['harm']:+.3f}", f"{d['help'] + d['harm']:+.3f}", f"{d['kinetic']:+.2f}"]
        for jacobian, path in (("stop", ALGORITHM_1), ("exact", EXACT)):
            ends = row["ends"][jacobian]
            probed = found.get((row["data"], path))
            line.append(f"{ends['ideal']:.2f}, {ends['shrunk']:.2f}; {MISSING if probed is None else f'{probed:.2f}'}")
        lines.append(line)
    titles = ["data", "own", "help", "harm", "stopped: own + harm", "exact: help + harm", "kinetic"]
    return table([*titles, "stopped ends at (ideal, shrunk; found)", "exact ends at"], lines)


def semantics(results: Results) -> str:
    """How rich the leader is."""
    keys = ("r2_ridge", "r2_mlp", "r2_given_label", "label_accuracy")
    titles = results.study.study.data
    lines = [[titles[row["data"]].title, *(f"{row[key]:.3f}" for key in keys)] for row in results.semantics]
    head = ["data", "texture explained, linear", "MLP", "beyond the class, linear", "class accuracy, linear"]
    return table(head, lines)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def interval(found: Difference | None, digits: int = 2, unit: float = 1) -> str:
    """A difference with its interval; z: what rounds to nothing is +0."""
    if found is None:
        return MISSING
    mean, low, high = (f"{number / unit:+z.{digits}f}" for number in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})"


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
