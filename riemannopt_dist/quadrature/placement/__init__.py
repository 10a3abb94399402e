"""Placements: from a profile to the partitions that a rule's points are made of, by name in `table`."""
