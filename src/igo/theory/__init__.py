"""The theory laboratory: smoothing, σ-nice functions, explicit and implicit graduated optimization.

NumPy and SciPy throughout: every gradient here is short enough to be written down, leading
dimensions batch starts, seeds and perturbations, and the package imports in a quarter second.
"""
