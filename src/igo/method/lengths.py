"""How long each stage is where Algorithm 3 says so, instead of all alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from igo.method.arguments import PlanError


def lengths_of_stages(
    phis: Sequence[float], rates: Sequence[float], ks: Sequence[int], epochs: int, h: float
) -> list[int]:
    """Epochs of each stage for updates ∝ 1/(φ_m² - h η_m/η_1), T_F of Algorithm 3 [derived].

    Whole epochs, at least one each, by largest remainders; an epoch of stage m has k_m updates.

    Raises:
        PlanError: the bracket is not positive somewhere, where T_F has no meaning.
    """
    brackets = [phi**2 - h * rate for phi, rate in zip(phis, rates, strict=True)]
    for m, bracket in enumerate(brackets, 1):
        if bracket <= 0:
            allowed = (
                f"φ_{m}² - h η_{m}/η_1 = {bracket:.3g} in stage {m} of {len(phis)}, and Algorithm 3"
                " needs it positive (ε_m > H_3 η_m); use a smaller h or fewer stages"
            )
            raise PlanError("h", h, allowed)
    shares = [1 / (bracket * k) for bracket, k in zip(brackets, ks, strict=True)]
    return _apportioned(shares, epochs)


def _apportioned(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers, at least 1 each, that add up to ``total`` nearly in proportion."""
    spare = total - len(shares)  # after one each
    exact = [max(0.0, share / math.fsum(shares) * total - 1) for share in shares]
    scale = spare / math.fsum(exact) if spare else 0.0
    exact = [one * scale for one in exact]
    lengths = [1 + math.floor(one) for one in exact]
    by_remainder = sorted(range(len(exact)), key=lambda m: math.floor(exact[m]) - exact[m])
    for m in by_remainder[: total - sum(lengths)]:
        lengths[m] += 1
    return lengths
