"""The laboratory: every statement of the source that is not network training, run and judged."""
