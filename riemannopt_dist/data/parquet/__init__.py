"""Parquet files of images, as Hugging Face lays data sets out, and of images' addresses."""
