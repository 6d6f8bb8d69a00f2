"""What reads runs: C² of a run, tables, the report, sharpness, studies of the noise.

Imports runs and what is below it, and theory for the bands that it draws.
"""
