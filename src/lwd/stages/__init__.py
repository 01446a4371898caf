"""The commands' work: each stage reads a config and leaves a folder of files."""
