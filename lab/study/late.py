"""The arm *late* of results/path.md, as a noise profile."""

from igo.plans.profiles import Position


def late(position: Position) -> float:
    """φ = 1, and in the last stage that of Method 2."""
    return 0.25 if position.m == position.M else 1.0
