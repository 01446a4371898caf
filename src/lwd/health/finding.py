"""What a first look at a run finds, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: its ``name``, what was found in words, and whether it is as it should be."""

    name: str
    found: str
    ok: bool


def table(findings: Sequence[Finding], title: str) -> str:
    """The findings under a title, as plain text."""
    width = max((len(finding.name) for finding in findings), default=0)
    rows = (f"  {'ok  ' if each.ok else 'WARN'}  {each.name:{width}}  {each.found}" for each in findings)
    return "\n".join([title, *rows])
