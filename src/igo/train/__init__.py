"""Training: images on the device, the loop, the engine of a step, models, C² while it trains.

Imports config and what is below it; knows no run folder, no W&B and no terminal.
"""
