"""A run as its report is made of it: tables, curves, photos and maps read from its directory."""
