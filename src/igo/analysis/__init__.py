"""What reads runs: C² of a run, tables, the report, sharpness.

Imports runs and what is below it.
"""
