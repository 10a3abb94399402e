"""Our speed against the bare model's and that of others, as ratios within one process: `make bench`."""
