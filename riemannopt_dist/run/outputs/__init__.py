"""What a run leaves beside its rows: attribution maps."""
