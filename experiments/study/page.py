"""docs/results.md: one block for each preset, between markers, rendered from the rows alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tables
from claims import claims
from design import StudyConfig
from lwd.files import write_text
from stats import Row

HEAD = """# Results: where learned schedules help

Every table, figure and verdict below is written by `python experiments/study/study.py --preset PRESET` from
the rows in `experiments/study/results/`, negative ones included. The question is not whether the learned schedule can
be made to win, but where the paper's findings hold: for semantic latents that explain little or much of the texture,
with and without classes, at short and long budgets, with coarse and exact solvers.
"""


MARK = "<!-- study "


def write_page(path: Path, preset: str, block: str) -> None:
    """Replace the head and the preset's block, or add it; other presets' blocks stay as they are."""
    text = path.read_text() if path.is_file() else ""
    blocks = text[text.find(MARK) :] if MARK in text else ""
    text = f"{HEAD}\n{blocks}" if blocks else HEAD
    begin, end = f"{MARK}{preset}: written by the command, do not edit -->", f"<!-- end of study {preset} -->"
    before, found, rest = text.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    before = before if found else before.rstrip("\n") + "\n\n"
    write_text(path, f"{before}{begin}\n{block}\n{end}{after}")


def render(
    study: StudyConfig,
    preset: str,
    machine: dict[str, Any],
    rows: Sequence[Row],
    probes: Sequence[Row],
    semantics: Sequence[Row],
    predictions: Sequence[Row],
    figures: Sequence[tuple[Path, str]],
    page: Path,
) -> str:
    """The block of a preset, in Markdown."""
    main = study.study.main
    real = f"{rows[0]['frechet_real']:.2f}" if rows else tables.MISSING
    depth = f", depth {study.model.depth}" if study.model.depth else ""
    data = f"Data: {Path(study.encode.dataset).stem}; network {study.model.name}{depth}; batch {study.train.batch}"
    pictures = {path.stem.rpartition("-")[2]: _picture(path, text, page) for path, text in figures}
    parts = [
        f"## Preset `{preset}`",
        f"{data}; {study.sample.num} samples for each measurement. Machine: {machine['machine']}; lwd "
        f"{machine['lwd']}, torch {machine['torch']}. Fréchet distances are to held-out images in the features of an "
        f"independent classifier; training images are at {real}. ± is the standard deviation over training seeds. "
        f"{len(rows)} measurements, {len(probes)} probes.",
        "### Design",
        tables.design(study),
        "Left out: " + " ".join(study.study.notes) if study.study.notes else "",
        "### What of the paper held here",
        claims(study, rows, probes, semantics),
        f"### The main comparison (cell {main})",
        tables.budgets(study, rows, main),
        pictures.get("convergence", ""),
        "Paired over seeds, which share noise and labels of samples. Three pairs are very little: a t-test on two "
        "degrees of freedom assumes normal differences and sees only large effects, and no correction is made for the "
        'number of tests. "lower" and "higher" ask for three seeds, one sign in all of them, and p < 0.05.',
        tables.tests(study, rows, main),
        "Steps at which a schedule's mean curve reaches another's final value (interpolated on log-log axes between "
        "budgets):",
        tables.reach(study, rows, main),
        "### Solvers and guidance",
        "Fréchet distance at the last budget:",
        tables.sampling(study, rows, main),
        "Evaluations of the network per sample:",
        tables.sampling(study, rows, main, "nfe", 0),
        *(
            text
            for value in ("precision", "recall", "accuracy")
            for text in (f"{value.capitalize()}:", tables.sampling(study, rows, main, value, 3))
        ),
        "What lambda does to solver cost: the schedules from the stiffest on, with Fréchet distances.",
        tables.stiffness(study, rows, probes),
        "### The map: encoders, classes, budgets",
        "The share of the held-out texture latent's variance that a regression on the semantic latent of the whole "
        "image explains, over all entries; beyond the class: of what a regression on the class alone leaves.",
        tables.encoders(study, semantics),
        f"Distance from collapse is 0 for tau^{study.probe.degree + 1} and 1 for the synchronous schedule.",
        tables.cells(study, rows, probes),
        pictures.get("cells", ""),
        pictures.get("boundary", ""),
        "### The schedules",
        pictures.get("schedules", ""),
        tables.trust(study, probes),
        "### What predicts the schedule",
        "What each term of the schedule's objective gains (negative) or loses on the straight way from the "
        "synchronous to the collapsed schedule, on the Gaussian that has the latents' means and covariance: the "
        "texture's loss by its own time (own), which the exact Jacobian turns into the same loss by the semantics' "
        "time (help); the semantics' loss by the texture's time (harm); the kinetic energy. The ratio is that of the "
        "stopped sum to the kinetic one: a lambda at which they cancel.",
        tables.drives(predictions),
        "Algorithm 1 in closed form on that Gaussian, against the probes of the first seed that ran to their full "
        "length. The probe's denoiser also learns the kinetic term, whose minimiser is a velocity shrunk by "
        "w / (w + lambda t'): ideal is without that, shrunk is with it learned to the end, and a probe goes from the "
        "one to the other:",
        tables.weakest(predictions, probes),
        tables.predicted(predictions, probes),
        pictures.get("prediction", ""),
    ]
    return "\n\n".join(part for part in parts if part)


def _picture(path: Path, text: str, page: Path) -> str:
    return f"![{text}]({Path(os.path.relpath(path, page.parent)).as_posix()})\n\n*{text}*"
