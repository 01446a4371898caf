"""Bytes, seconds and operations as people read them."""

from __future__ import annotations

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def scaled(value: float) -> str:
    """Three digits and a prefix of powers of a thousand: 237 G."""
    power = 0
    while abs(value) >= 999.5 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {_PREFIXES[power]}"


def size(value: float) -> str:
    """Bytes on disk: 10.9 GB."""
    return f"{scaled(value)}B"


def binary(value: float) -> str:
    """Bytes in memory, in MiB below one GiB."""
    return f"{value / 2**30:,.1f} GiB" if value >= 2**30 else f"{value / 2**20:,.1f} MiB"


def duration(seconds: float) -> str:
    """Two or three digits in the unit that suits: 12 s, 3.4 min, 52 h."""
    for unit, length in (("s", 1.0), ("min", 60.0)):
        if seconds < 100 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 3600:,.3g} h" if seconds < 3.6e6 else f"{seconds / 3600:,.0f} h"


def money(value: float) -> str:
    """US dollars, cents where there are few."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"
