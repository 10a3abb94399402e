"""The configuration of a run, a file for each part of it, from YAML to what the fingerprint covers."""
