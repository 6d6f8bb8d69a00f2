"""Data sets as files: where they are, what they contain, and their fingerprints.

It imports the ground files alone: a dry run uses it too, without torch.
"""
