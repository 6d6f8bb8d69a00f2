"""Many runs: a grid, its jobs, and where they run, here or through SLURM.

Imports report, for the power of a sweep, and what is below it.
"""
