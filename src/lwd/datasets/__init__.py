"""Data sets of labelled images in memory: built in, by name, or prepared by the user, by file."""
