"""Slopes by differences, which know no formula."""

import numpy as np


def slopes(function, x, step):
    """Central differences of a function along each of the last axis of x (n, d)."""
    moves = step * np.eye(x.shape[-1])
    return np.stack([(function(x + e) - function(x - e)) / (2 * step) for e in moves], -1)
