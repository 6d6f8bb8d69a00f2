"""Many runs as one table: a row for each run, and a summary of each setting."""
