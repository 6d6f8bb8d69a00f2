"""The idea itself: profile, split, plan, batches and the schedule that sets η_m and b_m.

Imports ground alone, and needs neither Hydra nor a run. Your own training loop uses it.
"""
