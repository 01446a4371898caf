"""docs/results.md, by hand but for its numbers, and docs/results/PRESET.md, the full tables, by program.

In `page.md` a number or a picture is asked for between double braces, with the preset's name first:

    {{cpu mean digits algorithm-1 logit_normal 1000}}     mean and standard deviation over seeds; also: heun8, guided
    {{cpu evaluations digits algorithm-1 logit_normal 1000}}  of the network for a sample, in the mean
    {{cpu difference NAME}}  {{cpu verdict NAME}}  {{cpu seeds NAME}}     of a hypothesis; seeds: how many are paired
    {{cpu less accuracy digits offset:0.3 logit_normal 1000}}  than the synchronous path's; or another metric
    {{cpu rank digits loss}}                              a score's rank correlation with the retrained networks
    {{cpu ranked digits}}                                 how many paths and seeds that, and the next, is of
    {{cpu cost digits by_probes}}                         processor seconds; or on_the_map
    {{cpu probe digits 0.02}}                             where it ended at a lambda: distance from collapse
    {{cpu collapsed digits}}                              how many of its probes collapsed
    {{cpu explained digits}}                              the share of the texture that the leader explains (MLP)
    {{cpu floor digits}}                                  the Fréchet distance of training images
    {{cpu rule digits loss}}                              by how much its path is worse than the best one
    {{cpu figure NAME}}                                   a picture with its caption
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tables
from design import LEARNED, Key, Metric
from figures import CAPTIONS, panels_of
from lwd.errors import UserError
from lwd.files import write_text
from stats import Difference, Row, rank_correlation
from tables import Results

ASKED = re.compile(r"\{\{([^{}]+)\}\}")


def fill(template: str, presets: Mapping[str, Results], page: Path) -> str:
    """The page: everything between double braces looked up. Raises UserError for what cannot be."""

    def found(match: re.Match[str]) -> str:
        preset, word, *arguments = match[1].split()
        if preset not in presets or word not in WORDS:
            raise UserError(f"page.md: {match[0]}: presets are {list(presets)}, words {list(WORDS)}")
        try:
            return WORDS[word](presets[preset], *arguments)
        except (KeyError, StopIteration, TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"page.md: {match[0]}: nothing of that kind was measured ({error!r})") from None

    def picture(match: re.Match[str]) -> str:
        preset, name = match[1], match[2]
        if preset not in presets or name not in panels_of(presets[preset]):
            raise UserError(f"page.md: {match[0]}: presets are {list(presets)}, figures {list(CAPTIONS)}, of something")
        path = page.parent / "results" / f"{preset}-{name}.png"
        where = Path(os.path.relpath(path, page.parent)).as_posix()
        return _figure(name, where, f" Preset {preset}.")

    return ASKED.sub(found, re.sub(r"\{\{(\S+) figure (\S+)\}\}", picture, template))


def _figure(name: str, where: str, of: str = "") -> str:
    caption = CAPTIONS[name] + of
    return f"![{caption}]({where})\n\n*{caption}*"


def full_tables(preset: str, results: Results) -> str:
    """The page of a preset: all that was measured, without a word of judgement."""
    study, facts = results.study, results.facts
    extra = " --extra" * any(cell.extra for cell in study.study.cells.values())
    parts = [
        f"# Preset `{preset}`: all tables",
        f"Written by `python experiments/study/study.py --preset {preset}{extra}` from "
        f"`experiments/study/results/{preset}`. "
        f"Machine: {facts['machine']}; lwd {facts['lwd']}, torch {facts['torch']}. {len(results.rows)} measurements of "
        f"{study.sample.num:,} samples. Fréchet distances are to held-out images in the features of an independent "
        "classifier; ± is the standard deviation over training seeds. Intervals of differences: 95 %, Student's, over "
        "seeds, paired, with a bootstrap's standard error; those of rank correlations: quantiles of a bootstrap over "
        "seeds, too narrow with few. p values of exploratory hypotheses are adjusted by Holm's method. "
        "[The page in words](../results.md).",
        *(_figure(name, f"{preset}-{name}.png") for name in panels_of(results)),
        "## What was expected, and what was found",
        tables.hypotheses(results),
        "## Less the synchronous path, all else equal",
        tables.against_synchronous(results),
        *(part for name in results.learned if tables.ranked(results, name) for part in _of_data(results, name)),
        "## Learned curves",
        "Distance from collapse is 0 for the extremal curve and 1 for the synchronous schedule."
        + "".join(f" Processor seconds, {data}: {_costs(cost)}." for data, cost in results.costs.items() if cost),
        tables.learned(results),
        "## Algorithm 1 in closed form, were the latents Gaussian",
        "What each term of the schedule's objective gains (negative) or loses on the straight way from the synchronous "
        "to the collapsed curve: the follower's loss by its own time (own), into which the exact Jacobian puts the "
        "same loss by the leader's time (help); the leader's loss by the follower's time (harm); the kinetic energy. "
        "Then the distance from collapse at which the descent ends at the chosen lambda: of an ideal denoiser, of one "
        "that has learned the kinetic term, too (`prediction.py`), and as the probe found it.",
        tables.predicted(results),
        "## What semantics tell of the texture",
        "The share of the held-out texture latent's variance that a regression on the semantic latent explains.",
        tables.semantics(results),
        "## Everything that was measured",
        tables.everything(results),
    ]
    return "\n\n".join(parts) + "\n"


def _of_data(results: Results, name: str) -> list[str]:
    return [
        f"## Rules that choose a path: {results.study.study.data[name].title}",
        tables.rules(results, name),
        tables.paths(results, name),
        tables.correlations(results, name),
    ]


def _costs(cost: Mapping[str, float]) -> str:
    return ", ".join(f"{part} {seconds:,.0f}" for part, seconds in cost.items())


def write_pages(template: Path, page: Path, presets: Mapping[str, Results]) -> None:
    """Write the page, and each preset's tables beside it."""
    text = fill(template.read_text(), presets, page)
    for preset, results in presets.items():
        write_text(page.parent / "results" / f"{preset}.md", full_tables(preset, results))
    write_text(page, text)


def _mean(results: Results, *words: str) -> str:
    return tables.spread(results.values(_key(*words)).values(), 1)


def _evaluations(results: Results, *words: str) -> str:
    numbers = list(results.values(_key(*words), "nfe").values())
    return f"{sum(numbers) / len(numbers):.0f}"


def _key(data: str, path: str, density: str, steps: str, *more: str) -> Key:
    solver = next((word for word in more if word not in ("guided", "sfd")), "exact")
    return (data, path, density, "sfd" not in more, int(steps), solver, "guided" in more)


def _hypothesis(results: Results, name: str) -> Any:
    return next(one for one in results.tested if one.name == name)


def _difference(results: Results, name: str) -> str:
    one = _hypothesis(results, name)
    return _interval(one.found, one.metric)


def _interval(found: Difference | None, metric: Metric) -> str:
    """Shares in hundredths."""
    return tables.interval(found) if metric == "frechet" else tables.interval(found, digits=1, unit=0.01)


def _less(results: Results, metric: Metric, *words: str) -> str:
    found = tables.less_synchronous(results, _key(*words), metric)
    if found is None:
        raise ValueError("too few seeds")
    return _interval(found, metric)


def _rule(results: Results, data: str, rule: str) -> str:
    known = ("synchronous", "offset:0.3", *LEARNED, *tables.SCORES)
    if rule not in known:
        raise ValueError(f"no such rule; known: {', '.join(known)}")
    one = tables.chosen(results, data).get(rule)
    return tables.MISSING if one is None else f"{one.less:+z.1f}" + (f", {one.path}" if one.path != rule else "")


def _ranked(results: Results, data: str) -> str:
    found = tables.ranked(results, data)
    return tables.MISSING if found is None else "{} paths, {} seeds".format(*found.truth.shape)


def _rank(results: Results, data: str, score: str) -> str:
    if score not in tables.SCORES:
        raise ValueError(f"no such score; known: {', '.join(tables.SCORES)}")
    found = tables.ranked(results, data)
    if found is None:
        return tables.MISSING
    whole, low, high = rank_correlation(found.scores[score], found.truth)
    return f"{whole:.2f} ({low:.2f} to {high:.2f})"


def _floor(results: Results, data: str) -> str:
    return f"{next(row['frechet_real'] for row in results.rows if row['data'] == data):.1f}"


def _probes(results: Results, data: str) -> list[Row]:
    return [row for row in results.probes if row["data"] == data and not row["path"]]


def _probe(results: Results, data: str, weight: str) -> str:
    distances = (row["distance"] for row in _probes(results, data) if math.isclose(row["lambda"], float(weight)))
    return f"{next(distances):.2f}"


def _collapsed(results: Results, data: str) -> str:
    ends = [row["collapsed"] for row in _probes(results, data)]
    if not ends:
        raise ValueError(f"no probe of {data!r}")
    return f"{sum(ends)} of {len(ends)}"


def _explained(results: Results, data: str) -> str:
    return f"{next(row['r2_mlp'] for row in results.semantics if row['data'] == data):.2f}"


WORDS: dict[str, Callable[..., str]] = {
    "mean": _mean,
    "evaluations": _evaluations,
    "difference": _difference,
    "less": _less,
    "verdict": lambda results, name: str(_hypothesis(results, name).verdict),
    "seeds": lambda results, name: str(len(found.each)) if (found := _hypothesis(results, name).found) else "0",
    "rank": _rank,
    "ranked": _ranked,
    "cost": lambda results, data, part: f"{results.costs[data][part]:,.0f}",
    "probe": _probe,
    "collapsed": _collapsed,
    "explained": _explained,
    "floor": _floor,
    "rule": _rule,
}
