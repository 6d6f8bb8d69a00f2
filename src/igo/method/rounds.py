"""M, the number of stages, from the accuracy ε that is wanted, as Algorithm 3 prints it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from igo.method.arguments import PlanError


def alpha_0(
    *,
    learning_rate: float,
    batch_size: float,
    variance: float,
    lipschitz: float,
    width: float,
    sigma: float,
) -> float:
    """α_0 = min{√b_1/(4 L_f η_1 C (1 + d̄)), √b_1/(√(2σ) η_1 C)}. Source: Algorithm 3.

    >>> from igo.method.rounds import alpha_0
    >>> alpha_0(learning_rate=0.1, batch_size=16, variance=100, lipschitz=1, width=1, sigma=0.5)
    0.5

    Args:
        learning_rate: η_1.
        batch_size: b_1.
        variance: C², as ``igo.measure_noise`` has it.
        lipschitz: L_f, a bound of ‖∇f‖, such as the largest that was measured.
        width: d̄, a bound of every d_m.
        sigma: σ of the new σ-nice function.

    Raises:
        ValueError: one of them is not a finite number above 0.
    """
    for name, value in locals().items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value}: it must be a finite number above 0")
    first_noise = learning_rate * math.sqrt(variance / batch_size)  # δ_1
    return min(1 / (4 * lipschitz * (1 + width)), 1 / math.sqrt(2 * sigma)) / first_noise


def rounds(epsilon: float, alpha_0: float, p: float) -> int:
    """M = ⌈(1/(α_0 ε))^(1/p)⌉, at least 1: the published M^p = 1/(α_0 ε), as a whole number.

    Raises:
        OverflowError: it is beyond any float.
    """
    exact = math.pow(alpha_0 * epsilon, -1 / p)
    return max(1, math.ceil(exact * (1 - 1e-12)))  # rounding makes no further stage


def stages_of(
    epsilon: float | None, alpha_0: float | None, *, profile: object, p: Any, most: int, what: str
) -> int | None:
    """M for ``epsilon``, at most ``most`` ``what``; None where neither it nor ``alpha_0`` is given.

    Raises:
        PlanError: ``epsilon`` has no meaning here, or asks for more stages than ``most``.
    """
    if epsilon is None and alpha_0 is None:
        return None
    if epsilon is None:
        raise PlanError("epsilon", None, "alpha_0 chooses the stages together with epsilon")
    if alpha_0 is None:
        allowed = "epsilon needs it; igo.method.rounds.alpha_0 makes it of L_f, d̄, σ and C²"
        raise PlanError("alpha_0", None, allowed)
    if profile != "graduated":
        allowed = "M^p = 1/(α_0 ε) belongs to profile graduated, Algorithm 3; leave it out"
        raise PlanError("epsilon", epsilon, allowed)
    try:
        count: float = rounds(epsilon, alpha_0, p)
    except (OverflowError, ValueError):  # of numbers too small for a float
        count = math.inf
    if count > most:
        allowed = (
            f"Algorithm 3 asks M = (1/(α_0 ε))^(1/p) = {count:,} stages of it, and the plan has"
            f" {most:,} {what}; use a larger ε or p, or train longer"
        )
        raise PlanError("epsilon", epsilon, allowed)
    return int(count)


def of_plan(given: Mapping[str, Any], of_profile: Mapping[str, Any], total: int) -> int | None:
    """M of a plan of ``total`` samples: as given, or by ``epsilon``.

    Raises:
        PlanError: as ``stages_of``, or both are given.
    """
    epsilon, scale, size = given["epsilon"], given["alpha_0"], given["batch_size"]
    most, what = given["epochs"] or 0, "epochs, at least one a stage"
    if given["lengths"] == "equal":
        most, what = 0 if isinstance(size, str) else total // size, f"batches of {size} samples"
    asked = stages_of(
        epsilon, scale, profile=given["profile"], p=of_profile.get("p"), most=most, what=what
    )
    if asked is not None and given["stages"] is not None:
        raise PlanError("stages", given["stages"], "epsilon chooses them; leave one out")
    return given["stages"] if asked is None else asked
