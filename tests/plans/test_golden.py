"""Plans of whole epochs are those of before, to the bit: plan.csv."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import igo
from igo.plans.stages import COLUMNS

PLANS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("golden_plans.json").read_text())


@pytest.mark.parametrize("number", range(len(PLANS)))
def test_a_plan_of_whole_epochs_is_the_one_of_before(number: int) -> None:
    golden = PLANS[number]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", igo.PlanWarning)
        plan = igo.plan(golden["profile"], **golden["given"])
    assert [list(row.values()) for row in plan.table()] == golden["stages"]
    assert [tuple(row) for row in plan.table()] == [COLUMNS] * len(plan.rows)
    assert plan.updates == golden["updates"]
