"""What every command prints, and the exit codes it ends with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from lwd.errors import Preempted, UserError

USER_ERROR = 2
PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: run the same command again."""
INTERRUPTED = 130


def show(text: str) -> None:
    """On stdout, with a line break; nothing for nothing, and of several processes the first alone.

    What the terminal's encoding lacks, or a file's name has of no encoding at all, is spelt out.
    """
    if text and os.environ.get("RANK", "0") == "0":
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def complain(message: str) -> None:
    """One line on stderr, whatever a file's content or name put into it."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
    sys.stderr.write(f"lwd: {line}\n")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """One line and exit code 2 for what the user can mend, 75 for a run that was asked to stop, 130 for Ctrl-C."""
    try:
        yield
    except UserError as error:
        complain(str(error))
        raise typer.Exit(USER_ERROR) from None
    except Preempted as error:
        complain(str(error))
        raise typer.Exit(PREEMPTED) from None
    except OSError as error:
        complain(f"{error.filename or 'file system'}: {error.strerror or error}")
        raise typer.Exit(USER_ERROR) from None
    except KeyboardInterrupt:
        complain("interrupted; what is finished is kept, run the same command again to go on")
        raise typer.Exit(INTERRUPTED) from None
