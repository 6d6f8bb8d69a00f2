"""Many runs: a grid, its jobs, and their start on this machine or through SLURM.

Imports report and the packages below it.
"""
