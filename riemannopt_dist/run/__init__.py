"""The distributed evaluation: configuration, grid of cells, workers, dispatcher and run directory."""
