"""The idea itself as plain data: profile, split, stages, and the batches and η of each update.

Imports ground alone, and needs neither torch nor a run.
"""
