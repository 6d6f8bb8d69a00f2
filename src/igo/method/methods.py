"""The paper's Methods 1 to 4: γ and split in place of κ and λ."""

from __future__ import annotations

import math

STAGES = 5
GAMMA = 1 / math.sqrt(2)  # of Methods 2 to 4; the noise of Method 1 is constant
SPLITS = {  # κ = 1, λ = 1; κ = 1/√2, λ = 1; κ = 1, λ = 2; κ = √3/2, λ = 3/2
    "method1": 1.0,
    "method2": 1.0,
    "method3": 0.0,
    "method4": math.log(math.sqrt(3) / 2) / math.log(GAMMA),
}


def method(profile: object, gamma: object, split: object) -> str | None:
    """``Method 1`` to ``Method 4``; None for any other schedule."""
    if profile == "constant":
        return "Method 1"
    if profile != "step" or not _near(gamma, GAMMA):
        return None
    names = [*SPLITS][1:]
    return next((f"Method {name[-1]}" for name in names if _near(split, SPLITS[name])), None)


def _near(value: object, exact: float) -> bool:
    return isinstance(value, float) and math.isclose(value, exact, abs_tol=1e-3)
