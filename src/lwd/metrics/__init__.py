"""Measures of two sets of images, by their features."""
