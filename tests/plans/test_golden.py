"""Plans of whole epochs are those of before, to the bit: plan.csv; and what they promise."""

import json
import math
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

from conftest import rounded

import igo
from igo.plans.plan import COLUMNS

PLANS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("golden_plans.json").read_text())


def test_a_plan_of_whole_epochs_is_the_one_of_before() -> None:
    for golden in PLANS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", igo.PlanWarning)
            plan = igo.plan(golden["profile"], **golden["given"])
        assert [list(row.values()) for row in plan.table()] == golden["stages"]
        assert [tuple(row) for row in plan.table()] == [COLUMNS] * len(plan.rows)
        assert plan.updates == golden["updates"]
        check_batches(plan, **golden["given"])


def check_batches(
    plan: igo.Plan,
    batch_size: int,
    split: float,
    batch_multiple: int,
    max_batch_size: int | None = None,
    **_: Any,
) -> None:
    """k_m = ⌈k_1 φ_m^(2(1-s))⌉ in its bounds, or the next k whose larger batch is on the grid.

    η_m takes what is left, so that δ_m/δ_1 = φ_m; the final stage has no noise and is left out.
    """
    n, cap = plan.n, min(max_batch_size or plan.n, plan.n)
    first_row, previous_k = plan.rows[0], -(-n // batch_size)
    assert first_row.batches == previous_k
    for row in (row for row in plan.rows if row.phi_m):
        exact = Fraction(first_row.batches) * Fraction(row.phi_m ** (2 * (1 - split)))
        least_k = min(max(math.ceil(exact * Fraction(1 - 1e-9)), -(-n // cap), 1), previous_k)
        on_grid = [k for k in range(least_k, previous_k + 1) if -(-n // k) % batch_multiple == 0]
        assert row.batches == (on_grid[0] if on_grid else least_k)
        noise = row.eta_m / first_row.eta_m / math.sqrt(row.b_m / first_row.b_m)
        assert noise == rounded(row.phi_m)
        previous_k = row.batches
