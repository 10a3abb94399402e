"""Schedules, their rules, and where their points are placed."""
