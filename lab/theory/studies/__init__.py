"""Studies: each runs one group of the source's statements and writes figures, tables, and rows."""
