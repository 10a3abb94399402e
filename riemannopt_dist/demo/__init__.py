"""The demo: its configuration, profiles, table and picture."""
