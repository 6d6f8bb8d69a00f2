"""Plans of two curves on a grid, walked update by update, and what the field schedules."""

import math
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from conftest import rounded, updates_of

import igo

CURVES: dict[str, Any] = {  # Each is a function of t, and 1 at the start.
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
    "linear": lambda t: 1 - t,
    "rises": lambda t: 1 + 3 * t,
    "dips": lambda t: 1 - 3 * t * (1 - t),
    "constant": lambda t: 1.0,
}


def random_arguments(dice: random.Random) -> dict[str, Any]:
    """Arguments of a plan; batch_size is a number, a table or a function."""
    unit = dice.choice([1, 1, 2, 5])
    b_1 = dice.randint(1, 9) * unit
    n = dice.choice([None, dice.randint(60, 200)])
    total = dice.choice([dice.randint(100, 900), (n or 150) * dice.randint(1, 6)])
    places = sorted(dice.choice([dice.random() * 0.9, dice.randint(1, total)]) for _ in range(3))
    sizes = sorted(dice.choices(range(b_1, 60, unit), k=3))
    table = {0: b_1, **dict(zip(places, sizes, strict=True))}
    batch_size = dice.choice([b_1, table, lambda t: b_1 * (1 + 3 * t)])
    arguments = {"n": n, "samples": total, "batch_size": batch_size, "batch_multiple": unit}
    arguments |= {"stages": dice.randint(1, max(dice.choice([total // b_1, 3]), 1))}
    arguments |= {"batch_ratio": 1.0 if batch_size is table else dice.choice([1.0, 1.5, 2.0])}
    arguments |= {"warmup_samples": dice.choice([0, 0, b_1 + 1, total // 2])}
    limit = dice.randint(b_1 if batch_size is not table else sizes[-1], 60)
    arguments |= {"max_batch_size": dice.choice([None, limit])}
    if dice.random() < 0.5:
        arguments |= {"rate": dice.choice([*CURVES.values(), "cosine"])}
        # Under a rate a number stays, so a bound and a ratio of it are refused.
        free: Any = {"max_batch_size": None, "batch_ratio": 1.0}
        return arguments | (free if batch_size == b_1 else {})
    split = dice.choice([0, 0.5, 1]) if batch_size == b_1 else None
    return arguments | {
        "profile": CURVES[dice.choice(["cosine", "linear", "constant", "dips"])],
        "split": split,
    }


def table_of(arguments: dict[str, Any]) -> dict[int, int]:
    """The sizes of a table by the samples at which they begin; its places may be shares."""
    sizes, warmup = arguments["batch_size"], arguments["warmup_samples"]
    if not isinstance(sizes, dict):
        return {}
    following_samples = arguments["samples"] - warmup
    return {
        t if isinstance(t, int) else warmup + math.ceil(t * following_samples): b
        for t, b in sizes.items()
    }


def stages_of(arguments: dict[str, Any]) -> list[tuple[int, float, float]]:
    """Of each stage: where it begins, the value of its curve, and b before it is whole."""
    names = ("samples", "batch_size", "warmup_samples", "stages", "batch_ratio")
    total, batch_size, warmup, M, ratio = (arguments[name] for name in names)
    n = arguments["n"] or total
    epochs = total // n - warmup // n
    starts = [0, *(warmup + (2 * m * (total - warmup) + M) // (2 * M) for m in range(1, M))]
    if total % n == 0 and epochs >= M:
        starts = [0, *((warmup // n + m * epochs // M) * n for m in range(1, M))]
    table = table_of(arguments)
    stages: list[tuple[int, float, float]] = []
    places = [*enumerate(starts)]
    if table or ("rate" in arguments and not callable(batch_size)):
        # A stage that the table begins has the value of the curve's own stage around it.
        unique = sorted({*starts, *table})
        places = [(sum(start <= place for start in starts) - 1, place) for place in unique]
    for m, place in places:
        curve = arguments.get("rate") or arguments.get("profile")
        level = CURVES.get(curve, curve)(m / M)
        if callable(batch_size):
            b_1, b = batch_size(0), batch_size(m / M)
        elif table:
            b_1, b = table[0], max(b for start, b in table.items() if start <= place)
        else:
            lowest = min([level, *(earlier_level for _, earlier_level, _ in stages)])
            split = arguments.get("split")
            b_1, b = batch_size, batch_size * (1 if split is None else lowest ** (-2 * (1 - split)))
        b = min(b, arguments["max_batch_size"] or n, n)
        if ratio > 1:
            limit = min(arguments["max_batch_size"] or n, n)
            powers = [b_1 * ratio**power for power in range(12) if b_1 * ratio**power <= limit]
            b = min(powers, key=lambda power: abs(math.log(power / b)))
        stages.append((place, level, b))
    return stages


def check(arguments: dict[str, Any]) -> None:
    """Walk through a plan, and compare each update with the curves at its stage's beginning."""
    plan, stages = igo.plan(**arguments), stages_of(arguments)
    n, unit = arguments["n"] or arguments["samples"], arguments["batch_multiple"]
    samples, first_row = 0, plan.rows[0]
    for row in plan.rows:
        _, level, b = stages[row.stage - 1]
        place = (row.first_epoch - 1) * n + row.start
        assert place == samples
        size = int(b * (1 + 1e-9))
        on_grid = size - size % unit or size
        assert row.samples >= on_grid
        assert row.b_m <= max(b, 1) * (1 + 1e-8)
        if unit == 1 or row.samples < n:  # Otherwise k is the next one on the grid.
            assert on_grid / 2 < row.b_m * (1 + 1e-9)
        if arguments["n"] is None and unit > 1:
            assert (row.b_m, row.samples % on_grid) == (on_grid, 0)
        elif row.start + row.samples < n and place + row.samples < plan.samples:
            assert (row.b_m, row.epochs) == (on_grid, 1)  # Whole batches end it.
        law = row.eta_m / first_row.eta_m / math.sqrt(row.b_m / first_row.b_m)
        assert law == rounded(row.phi_m)
        assert (row.eta_m if "rate" in arguments else row.phi_m) == rounded(level)
        samples += row.epochs * row.samples
    assert 0 <= arguments["samples"] - samples < max(stages[-1][2], 1) + 1e-9
    check_beginnings(plan, arguments, stages)
    walk(plan, arguments["warmup_samples"], arguments["max_batch_size"] or n)
    for kind, updates in (("rate", plan.updates), ("noise", plan.samples / first_row.b_m)):
        control = plan.control(kind)
        walk(control, arguments["warmup_samples"], n)
        assert abs(control.updates - updates) <= 1


def check_beginnings(
    plan: igo.Plan, arguments: dict[str, Any], stages: list[tuple[int, float, float]]
) -> None:
    """A stage of whole epochs begins with one, and a size of a table at the first batch after."""
    table = table_of(arguments)
    n = arguments["n"]
    in_whole_epochs = n and not any(start % n for start, _, _ in stages)
    for row, next_row in pairwise(plan.rows):
        start, _, next_b = stages[next_row.stage - 1]
        late = (next_row.first_epoch - 1) * plan.n + next_row.start - start
        b = stages[row.stage - 1][2]
        if row.stage == next_row.stage:
            continue
        if in_whole_epochs:
            assert late == 0
        elif start in table and not n:
            assert 0 <= late < b
        else:
            assert (0 if start in table else -b) <= late <= b + next_b


def walk(plan: igo.Plan, warm: int, cap: int) -> None:
    """Each sample comes once an epoch, in order; the sizes of a row differ by one at most."""
    samples, sizes = 0, dict[igo.Row, set[int]]()
    for number, update in enumerate(updates_of(plan), 1):
        assert (update.epoch - 1) * plan.n + update.start == samples
        assert update.batch_size <= cap
        assert update.start + update.batch_size <= plan.n
        samples += update.batch_size
        sizes.setdefault(update.row, set()).add(update.batch_size)
        assert (plan.after(samples - 1), plan.after(samples)) == (number - 1, number)
        factor = min(1, samples / warm) if warm else 1
        assert math.isclose(update.learning_rate, update.row.eta_m * factor, rel_tol=1e-12)
    assert samples == plan.samples
    assert all(max(row_sizes) - min(row_sizes) <= 1 for row_sizes in sizes.values())
    assert [*sizes] == [*plan.rows]
    for row, next_row in pairwise(plan.rows):
        assert row.gamma_m == rounded(next_row.phi_m / row.phi_m)
        assert row.kappa_m == rounded(next_row.eta_m / row.eta_m)
        assert row.lambda_m == rounded(next_row.b_m / row.b_m)


@pytest.mark.filterwarnings("ignore::igo.PlanWarning")
@pytest.mark.parametrize("plans", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_every_update_is_on_both_curves_and_on_the_grid(plans: int) -> None:
    dice, refused = random.Random(plans), 0
    for _ in range(plans):
        arguments = random_arguments(dice)
        try:
            check(arguments)
        except igo.PlanError:  # There are too few samples, or there is no control.
            refused += 1
    assert refused < plans / 2


def test_stages_of_algorithm_3_are_as_long_as_it_asks() -> None:
    """Updates ∝ 1/(φ² - h η/η_1), φ = ((M - m + 1)/M)^p, within what whole batches allow.

    M is given, or M^p = 1/(α_0 ε).
    """
    cases: list[Any] = [
        (0.5, 30, 30, 0.5, 0, {}),
        (0.5, 400, 400, 0.5, 0, {}),
        (1, 20, 200, 0.5, 0, {}),
        (0.5, 400, 600, 1, 0, {}),
        (1, 3, 49, 0.5, 0.1, {}),
        (0.5, 25, 30, 0.5, 0.03, {"epsilon": 0.2, "alpha_0": 1}),
        (1, 4, 30, 0.5, 0.05, {"epsilon": 0.125, "alpha_0": 2}),
    ]
    for p, stages, epochs, split, h, options in cases:
        plan = igo.plan(
            "graduated",
            p=p,
            n=1437,
            epochs=epochs,
            stages=None if options else stages,
            batch_size=16,
            split=split,
            algorithm3=options | {"h": h},
        )
        updates: Counter[int] = Counter()
        for row in plan.rows:
            updates[row.stage] += row.updates
        phis = [((stages - m) / stages) ** p for m in range(stages)]
        assert [*{row.stage: row.phi_m for row in plan.rows}.values()] == rounded(phis)
        shape = [1 / (phi**2 - h * phi**split) for phi in phis]
        scale = plan.updates / sum(shape)
        for m, share in enumerate(shape, 1):
            assert abs(updates[m] - scale * share) < 2 + 0.07 * scale * share


def test_lengths_of_algorithm_3_take_no_batch_above_n() -> None:
    arguments: Any = {"p": 1, "n": 100, "epochs": 100, "stages": 8, "batch_size": 5}
    above, at_n = (
        igo.plan("graduated", **arguments, split=0, max_batch_size=limit, algorithm3={"h": 0})
        for limit in (10**6, 100)
    )
    assert above == at_n


def test_many_short_stages_do_not_keep_the_batch_small() -> None:
    """Each of 8 samples: b is counted over stages. Exactly φ = b_1/b it would take 769 updates."""
    plan = igo.plan("cosine", samples=12_288, batch_size=8, split=0.5, stages=1536)
    assert 769 <= plan.updates < 769 * 1.05
    assert plan.batch_sizes[0] > 400
    assert "801 updates; 1,536 with b constant" in str(plan)
    with pytest.raises(TypeError):
        plan.after(1.5)  # type: ignore[arg-type]
