"""Many runs as one table: a row a run, a summary a setting."""
