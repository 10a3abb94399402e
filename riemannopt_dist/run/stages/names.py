"""The stages by name, in their order: each has a folder of shards in the run directory."""

SELECTION = "selection"
FIT = "fit"
REFINE = "refine"
RESULTS = "results"
