"""Experiments as files: the format, and how it is written and read. See docs/reference/experiment-archive.md."""
