"""What the command line prints in one line: what the user can mend (exit code 2), a run that was stopped (75, 130)."""


class UserError(Exception):
    """Bad input, in one line: what is wrong, where (file, key, index), what to do."""


class Preempted(Exception):  # noqa: N818 - no error
    """A run was asked to stop, and has saved where it was; one line that says so."""


class Interrupted(Preempted):
    """The same by Ctrl-C."""
