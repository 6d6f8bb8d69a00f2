"""The idea itself: profile, split, plan, batches, C², δ, as functions of plain numbers and tensors.

It imports the ground files alone, and needs neither Hydra nor a run. Your own training loop uses it
directly; each trainer of another library has a file in adapters/.
"""
