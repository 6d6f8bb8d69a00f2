"""The studies of results/: their runs, their archives, and what their pages show."""
