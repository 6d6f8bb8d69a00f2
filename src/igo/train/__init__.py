"""Training: images on the device, the loop, the engine of a step, models, C² while it trains.

It imports config and the rooms below, and uses no run folder, no W&B and no terminal.
"""
