"""The one exception that means "the user can mend this": the command line prints it and exits with code 2."""


class UserError(Exception):
    """Bad input, in one line: what is wrong, where (file, key, index), what to do."""
