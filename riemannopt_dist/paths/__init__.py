"""Paths from a baseline to an image."""
