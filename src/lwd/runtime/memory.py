"""The system allocator, told to keep what a training step frees: the next step asks for the same sizes again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER_TRIM = 2**31 - 1


def keep_freed_memory() -> None:
    """Let glibc's allocator hold on to freed blocks of any size; does nothing where there is no glibc.

    By default it returns large blocks to the kernel at once, so that every large tensor of every step starts on fresh
    pages, each of which faults. On the CPU that costs a step of LightningDiT-S a tenth of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
