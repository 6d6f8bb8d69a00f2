"""Studies: each measures, draws and judges one group of the source's statements."""
