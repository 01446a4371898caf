"""The command line: argument parsing and calls, nothing else."""
