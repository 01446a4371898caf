"""Built-in data sets, by name."""
