"""`lwd report`: one self-contained page of everything that an output folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lwd.data.samples import INFO
from lwd.errors import UserError
from lwd.files import check_place, write_text
from lwd.plots.text import count, number, percent
from lwd.plots.theme import css
from lwd.run import RunConfig
from lwd.stages.report.about import About, about
from lwd.stages.report.comparison import RESULTS, ComparisonSection, comparison_section, read_results
from lwd.stages.report.learned import LearnedSection, learned_section
from lwd.stages.report.samples import SamplesSection, read_pixels, sample_folders, samples_section
from lwd.stages.report.strip import StripSection, strip_section
from lwd.stages.report.sweep import SweepSection, sweep_section
from lwd.stages.report.trace import TraceSection, trace_section
from lwd.stages.report.variants import read_variants

PAGE = "report.html"


@dataclass(frozen=True)
class Page:
    """What the template shows; None: not there yet."""

    about: About
    learned: LearnedSection | None
    sweep: SweepSection | None
    trace: TraceSection | None
    comparison: ComparisonSection | None
    samples: SamplesSection | None
    strip: StripSection | None

    @property
    def headlines(self) -> list[str]:
        """The page in a few sentences."""
        found = (
            self.learned.summary if self.learned else None,
            self.sweep.summary if self.sweep else None,
            self.comparison.verdict if self.comparison else None,
        )
        return [sentence for sentence in found if sentence]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to look at."""
        sections = (self.learned, self.sweep, self.trace, self.comparison, self.samples, self.strip)
        return not self.about.data and all(section is None for section in sections)


def write_page(experiment: RunConfig) -> Path:
    """Write OUTPUT/report.html from whatever the stages have left in OUTPUT, and return its path.

    Raises UserError where there is nothing to show, or a file is not what its name says.
    """
    path = experiment.output / PAGE
    check_place(path)
    page = read_page(experiment)
    if page.empty:
        raise UserError(
            f"{experiment.output}: nothing to show yet; run a stage first, e.g. `lwd encode` or `lwd sweep`"
        )
    write_text(path, render(page))
    return path


def read_page(config: RunConfig) -> Page:
    """Everything that the output folder holds."""
    results, pixels = config.output / RESULTS, read_pixels(config)
    measured = [result.variant for result in read_results(results)] if results.is_file() else []
    variants = read_variants(config)
    variants = variants.also([*measured, *(f.variant for f in sample_folders(config, variants, INFO))])
    return Page(
        about=about(config),
        learned=learned_section(config, variants),
        sweep=sweep_section(config),
        trace=trace_section(config),
        comparison=comparison_section(config, variants),
        samples=samples_section(config, variants, pixels),
        strip=strip_section(config, variants, pixels),
    )


def render(page: Page) -> str:
    """The page as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "count": count, "percent": percent}
    template = environment.from_string((files("lwd.stages.report") / "page.html").read_text(encoding="utf-8"))
    return template.render(page=page, colours=Markup(css()))  # noqa: S704 - our own constants
