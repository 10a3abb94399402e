"""Performance information curves: how fast a prediction recovers with the information a map reveals."""
