"""The idea itself: profile, split, plan, batches, C², δ, as functions of plain numbers and tensors.

Imports the ground files alone: neither Hydra nor a run is needed here.
"""
