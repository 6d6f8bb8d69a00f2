"""One run from command to finished record: folder, checkpoints, W&B, terminal.

Imports train and the packages below it.
"""
