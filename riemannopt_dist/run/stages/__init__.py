"""What is done to the images of a shard: selection, fit, evaluation."""
