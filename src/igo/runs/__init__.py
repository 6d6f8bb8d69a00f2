"""One run from command to finished record, and its sharpness: folder, checkpoints, W&B, terminal.

Imports train and the packages below it.
"""
