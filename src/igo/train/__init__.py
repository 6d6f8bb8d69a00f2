"""Training: the loop, the engine that executes a step, models, optimizers, C² while it trains.

Imports data and what is below it; knows no run folder, no W&B and no terminal.
"""
