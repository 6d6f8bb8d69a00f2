"""The idea itself: profile, split, plan, batches, C², δ, as functions of plain numbers and tensors.

Imports the ground files alone: neither Hydra nor a run is needed here. A training loop of one's own
uses it as it is, other people's trainers by a file of adapters/ each.
"""
