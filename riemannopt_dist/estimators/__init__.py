"""Estimators of the path integral from n evaluations."""
