"""The pipeline on this machine, in containers or processes."""
