"""One run from command to finished record: its folder, checkpoints, W&B, the terminal.

Imports train and what is below it.
"""
