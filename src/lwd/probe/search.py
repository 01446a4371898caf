"""The one-dimensional search for lambda: the weakest value whose probes do not collapse (Section 3.5, Figure 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lwd.errors import UserError
from lwd.groups import Layout
from lwd.probe.bisection import Bisection, Search, weakest_stable
from lwd.probe.learn import learn
from lwd.probe.outcome import NOTHING_MOVED, Outcome, SweepRow, nothing_moved, row, stable
from lwd.probe.settings import LearnSettings
from lwd.probe.stopping import EarlyStop
from lwd.schedules import Schedule
from lwd.schedules.collapse import Criterion

WINDOWS = 10
"""Into how many windows, at the end of which it is looked at, a probe's steps are divided by default."""


@dataclass(frozen=True)
class Trial:
    """A probe to be run; ``full``: to its last step, not ended early."""

    kinetic_weight: float
    seed: int
    full: bool = False


Found = dict[tuple[float, int], Outcome]
"""By lambda and seed."""
RunTrials = Callable[[Sequence[Trial]], Iterable[Outcome]]


def find(
    strategy: Search, run: RunTrials, seeds: Sequence[int], at_once: int = 1, say: Callable[[str], None] = print
) -> Found:
    """Probe until the search is done and the chosen lambda's probes have their full length, or all prove too short.

    ``run`` does some trials side by side, of which there are ``at_once`` or so; a trial that is asked for again in
    ``full`` goes on from where it ended.
    """
    found: Found = {}
    while True:
        known = stable(found.values())
        futile = bool(found) and nothing_moved(found.values())
        weights = [] if futile else strategy.next(known, max(1, at_once // len(seeds)))
        if weights:
            trials = [Trial(weight, seed) for weight in weights for seed in seeds]
        else:
            chosen = weakest_stable(known)
            cut = [seed for seed in seeds if chosen is not None and found[chosen, seed].stopped]
            if chosen is None or not cut:
                return found
            say(f"sweep: lambda {chosen:g} goes on to its full length")
            trials = [Trial(chosen, seed, full=True) for seed in cut]
        new = {(t.kinetic_weight, t.seed): outcome for t, outcome in zip(trials, run(trials), strict=True)}
        if weights:
            for weight, is_stable in stable(new.values()).items():
                say(f"sweep: lambda {weight:g} {'is stable' if is_stable else 'collapsed'}")
        found |= new


def search(
    build_model: Callable[[], nn.Module],
    data: Any,
    layout: Layout,
    leader: str,
    *,
    strategy: Search | None = None,
    criterion: Criterion | None = None,
    seeds: Sequence[int] = (0,),
    stop: EarlyStop | None = None,
    folder: str | Path | None = None,
    say: Callable[[str], None] = print,
    **more: Any,
) -> tuple[Schedule, list[SweepRow]]:
    """The schedule of the weakest lambda that does not collapse, and a row for each probe.

    Each probe trains a network of ``build_model()``, initialised there; the rest is as in `learn`, to which ``more``
    goes. ``strategy``: which lambdas are tried, `Bisection` between 0.01 and 0.1 by default; ``criterion``: what counts
    as collapsed; a lambda is stable if the probes of all ``seeds`` are. ``stop``: when probes end early, by default
    looked at ten times; those of the chosen lambda run to their full length all the same. Raises UserError where the
    strongest lambda collapses, or no probe moves.
    """
    strategy, criterion = strategy or Bisection(0.01, 0.1), criterion or Criterion()
    steps = more.get("steps", LearnSettings.model_fields["steps"].default)
    stop = stop or EarlyStop(max(1, steps // WINDOWS), criterion=criterion)

    def run(trials: Sequence[Trial]) -> Iterable[Outcome]:
        for trial in trials:
            name = f"lambda-{trial.kinetic_weight:g}-seed{trial.seed}"
            schedule = learn(
                build_model(),
                data,
                layout,
                leader,
                seed=trial.seed,
                folder=None if folder is None else Path(folder) / name,
                stop=None if trial.full else stop,
                kinetic_weight=trial.kinetic_weight,
                **more,
            )
            yield Outcome.of(trial.kinetic_weight, trial.seed, schedule, name, criterion)

    found = find(strategy, run, seeds, say=say)
    rows = [row(outcome) for _, outcome in sorted(found.items())]
    if nothing_moved(found.values()):
        defaults = LearnSettings.model_construct(**more)
        raise UserError(f"search: {NOTHING_MOVED.format(steps=defaults.steps, rho_lr=defaults.rho_lr)}")
    chosen = weakest_stable(stable(found.values()))
    if chosen is None:
        raise UserError(
            f"search: every lambda up to {max(r.kinetic_weight for r in rows):g} collapsed; try larger ones"
        )
    return found[chosen, seeds[0]].schedule, rows
