"""What the command line prints in one line: what the user can mend (exit code 2), a run that was stopped (75, 130)."""

from __future__ import annotations

import re

_BREAK = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_LONGEST, _END = 2000, 400
"""Of a line in all, and of what is kept of the end of a longer one, which says what to do."""


_NAMES: dict[str, str] = {}


def call(copy: str, name: str) -> None:
    """From now on errors say ``name`` for a path ``copy``: of what people know by another place, such as a URL."""
    _NAMES[copy] = name


def called(text: str) -> str:
    """The text with the names that `call` gave."""
    for copy, name in _NAMES.items():
        text = text.replace(copy, name)
    return text


class UserError(Exception):
    """Bad input, in one line: what is wrong, where (file, key, index), what to do.

    Paths have the names that `call` gave them. Line breaks in it, which a file's content or name may have, are spelt
    out; the middle of a very long one is left out.
    """

    def __init__(self, message: str) -> None:
        line = _BREAK.sub(lambda found: ascii(found[0])[1:-1], called(message))
        long = len(line) > _LONGEST
        super().__init__(f"{line[: _LONGEST - _END - 5]} ... {line[-_END:]}" if long else line)


class Preempted(Exception):  # noqa: N818 - no error
    """A run was asked to stop, and has saved where it was; one line that says so."""


class Interrupted(Preempted):
    """The same by Ctrl-C."""
