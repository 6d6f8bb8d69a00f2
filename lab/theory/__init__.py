"""Every statement of the source that is not network training, run and judged."""
