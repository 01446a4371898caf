"""Numbers and lists as people write them."""

from __future__ import annotations

from collections.abc import Sequence

RHO = "\N{GREEK SMALL LETTER RHO}"


def number(value: float) -> str:
    """Write about three significant digits, never an exponent: 0.123, 5.80, 123.4."""
    size = abs(value)
    return f"{value:.{3 if size < 1 else 2 if size < 100 else 1}f}"


def count(value: int) -> str:
    """Write an integer with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def counted(value: int) -> str:
    """Write a small count as a word."""
    words = ("no", "one", "two", "three", "four", "five", "six")
    return words[value] if value < len(words) else str(value)


def percent(value: float) -> str:
    """Write a share in [0, 1] as a percentage."""
    return f"{100 * value:.1f}\u202f%"


def listed(parts: Sequence[str]) -> str:
    """Join words as in "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
