"""Many runs, on this machine or through SLURM. Imports report and the packages below it."""
