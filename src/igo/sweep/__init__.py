"""Many runs: from grids to jobs, on this machine or a SLURM cluster, to one table."""
