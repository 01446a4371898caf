"""What every command prints, and the exit codes it ends with."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from lwd.errors import Interrupted, Preempted, UserError

USER_ERROR = 2
EXTRA_OF = {
    **dict.fromkeys(("matplotlib", "scipy", "sklearn"), "stages"),
    **dict.fromkeys(("diffusers", "transformers"), "encoders"),
}
"""By package that `pip install lwd` alone does not bring, the extra that does."""
PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: run the same command again."""
INTERRUPTED = 130


def show(text: str) -> None:
    """On stdout, with a line break; nothing for nothing, and of several processes the first alone.

    What the terminal's encoding lacks, or a file's name has of no encoding at all, is spelt out.
    """
    if text and _is_first():
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def complain(message: str) -> None:
    """One line on stderr, whatever a file's content or name put into it."""
    sys.stderr.write(f"lwd: {printable(message)}\n")


def printable(text: str) -> str:
    """The text in one line: line breaks, control characters and the like are spelt out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """One line and exit code 2 for what the user can mend, 75 for a run that was asked to stop, 130 for Ctrl-C.

    What the user can mend includes asking for more memory than there is.
    """
    try:
        with _our_words_alone():
            yield
    except UserError as error:
        complain(str(error))
        raise typer.Exit(USER_ERROR) from None
    except Preempted as error:
        if _is_first():
            complain(str(error))
        raise typer.Exit(INTERRUPTED if isinstance(error, Interrupted) else PREEMPTED) from None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        complain(f"this needs {package}, which is not installed: pip install 'lwd[{EXTRA_OF[package]}]'")
        raise typer.Exit(USER_ERROR) from None
    except OSError as error:
        complain(f"{error.filename or 'file system'}: {error.strerror or error}")
        raise typer.Exit(USER_ERROR) from None
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        complain(f"not enough memory ({_first_line(error)}); ask for less: a smaller batch, micro_batch or network")
        raise typer.Exit(USER_ERROR) from None
    except KeyboardInterrupt:
        complain("interrupted; what is finished is kept, run the same command again to go on")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _our_words_alone() -> Iterator[None]:
    """The block in which libraries keep to themselves what nobody can do anything about: Pillow's remarks on pictures,
    whose errors are ours to tell, and PyTorch's on the format of a file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        warnings.filterwarnings("ignore", message="'torch.load' received a zip file")
        yield


def _is_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; PyTorch has a class for that on GPUs alone."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OF_MEMORY)


_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "Storage size calculation overflowed",
    "numel: integer multiplication overflow",
)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rpartition("DefaultCPUAllocator: ")[2][:200]
