"""What is made of a run's Parquet files: tables and figures. Needs neither torch nor Ray."""
