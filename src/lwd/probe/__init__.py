"""Stage I: learning the schedule."""
