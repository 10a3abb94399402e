"""Classifiers by name, and whether they can be explained."""
