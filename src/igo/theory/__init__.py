"""The theory laboratory: smoothing, σ-nice functions, explicit and implicit graduated optimization.

NumPy and SciPy throughout; PyTorch, imported late, only for the network in `digits`.
"""
