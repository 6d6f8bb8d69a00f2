"""Data sets as files: where they are, what they contain, and their fingerprints.

Imports ground alone. A dry run uses it too, without torch but for images in folders.
"""
