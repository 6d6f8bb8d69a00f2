"""Data sets as files: where they are, what they hold, and by which fingerprint they are known.

Imports the ground files alone: a dry run asks here too, without torch.
"""
