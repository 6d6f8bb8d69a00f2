"""Statements of the source that are not network training, run and judged."""
