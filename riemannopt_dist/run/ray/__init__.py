"""A run on Ray: the driver, its task tracker and pool, and the workers."""
