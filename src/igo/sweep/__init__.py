"""Many runs: a grid, its jobs, and where they run, here or through SLURM.

Imports analysis, for the table at a sweep's end, and what is below it.
"""
