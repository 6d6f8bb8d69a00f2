"""Algorithm 3's M from ε: by enumeration, and in a plan."""

import math
from typing import Any

import pytest

import igo
from igo.method.algorithm3 import alpha_0, stages_for

PLAN: dict[str, Any] = {"n": 1000, "epochs": 40, "learning_rate": 0.1, "batch_size": 10, "p": 0.5}


@pytest.mark.parametrize("p", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("product", [2.0, 0.5, 1 / 3, 0.3, 0.2, 0.1])
def test_m_is_the_smallest_number_with_which_the_bound_reaches_epsilon(
    product: float, p: float
) -> None:
    """The published M^p = 1/(α_0 ε); 1/(α_0 M^p) is the bound after M rounds."""
    m = next(m for m in range(1, 20_000) if m**p * product >= 1 - 1e-12)
    assert stages_for(product / 4, 4.0, p) == m


def test_alpha_0_is_the_printed_minimum() -> None:
    known = {"learning_rate": 0.2, "batch_size": 9, "variance": 4.0}
    steep = alpha_0(**known, lipschitz=3, width=2, sigma=0.1)
    assert steep == pytest.approx(math.sqrt(9) / (4 * 3 * 0.2 * 2 * (1 + 2)))
    curved = alpha_0(**known, lipschitz=0.01, width=1, sigma=8)
    assert curved == pytest.approx(math.sqrt(9) / (math.sqrt(2 * 8) * 0.2 * 2))
    with pytest.raises(ValueError, match="sigma=0"):
        alpha_0(**known, lipschitz=1, width=1, sigma=0)


def test_a_plan_has_the_stages_that_epsilon_asks_for() -> None:
    """α_0 ε = 1/4 and p = 1/2: M = 16; the same plan as with stages=16."""
    assert igo.plan("graduated", **PLAN, algorithm3={"epsilon": 0.125, "alpha_0": 2}) == igo.plan(
        "graduated", **PLAN, stages=16
    )
