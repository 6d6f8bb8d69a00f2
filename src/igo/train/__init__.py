"""Training: images on the device, the loop, the engine of a step, models, C² while it trains.

Imports config and the packages below it. It uses no run folder, no W&B and no terminal.
"""
