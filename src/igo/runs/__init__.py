"""One run from command to finished record: its folder, checkpoints, W&B, the terminal.

Imports train and the packages below it.
"""
