"""The plan in a training loop: its batches, the schedule that sets η_m, samples that resume.

Imports plans and ground alone.
"""
