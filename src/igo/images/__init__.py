"""Data sets as files: where they are, what they hold, and by which fingerprint they are known.

Knows nothing of a run or its configuration, and imports no torch: a dry run asks here too.
"""
