"""Plans whose stages begin inside epochs or come from ε, by enumeration and closed forms."""

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from conftest import rounded, updates_of

import igo
from igo.plans.algorithm3 import alpha_0, stages_for


def test_equal_stages_are_one_printed_row() -> None:
    """10 batches an epoch; wsd falls by 1, 3/4, 1/2 and 1/4 in its last four of ten stages."""
    wsd = igo.plan(
        "wsd", n=100, epochs=20, stages=10, learning_rate=1, batch_size=10, split=1, share=0.4
    )
    rows = [line.split() for line in str(wsd).splitlines()[1:]]
    assert [row[:4] for row in rows[:2]] == [
        ["1-7", "1-14", "10", "140"],
        ["8", "15-16", "10", "20"],
    ]
    assert (len(rows), rows[-1][-2:]) == (5, ["200", "updates"])
    assert (wsd.at(163).epoch, wsd.at(163).batch) == (17, 3)  # 16 epochs have 160.
    with_end = igo.plan(
        "linear", n=100, samples=200, batch_size=10, split=1, algorithm3={"final_updates": 3}
    )
    assert str(with_end).endswith("\n5 epochs of 100 samples: 23 updates")
    warm = igo.plan("constant", n=100, epochs=2, batch_size=10, warmup_samples=50)
    assert str(warm).endswith(": 20 updates, η warms up over 50 samples")
    halves = igo.plan("constant", n=100, epochs=1, stages=2, learning_rate=0.1, batch_size=10)
    assert len(str(halves).splitlines()) == 4  # Parts of an epoch stay apart.
    assert "samples" in str(halves).splitlines()[0]  # They begin there.
    with pytest.raises(TypeError):
        wsd.at(1.5)  # type: ignore[arg-type]
    for number in (0, 201):
        with pytest.raises(IndexError, match="updates 1 to 200"):
            wsd.at(number)


def test_exponential_decays_by_samples_after_the_warm_up() -> None:
    """decay^e after e epochs of 1,000; the warm-up is 100, later stages begin at 400, 700, 1000."""
    plan = igo.plan(
        "exponential", n=1000, samples=1300, stages=4, warmup_samples=100, decay=0.5, batch_size=10
    )
    phis = {row.stage: row.phi_m for row in plan.rows}
    assert [*phis.values()] == rounded([0.5**e for e in (0, 0.3, 0.6, 0.9)])


def test_a_function_is_a_profile() -> None:
    arguments: Any = {"n": 100, "epochs": 5, "learning_rate": 0.1, "batch_size": 2}
    by_name = igo.plan("graduated", p=0.5, **arguments)
    assert igo.plan(lambda t: (1 - t) ** 0.5, **arguments).is_that_of(by_name.identity)
    assert igo.plan(lambda t: math.sqrt((t.M - t.m + 1) / t.M), **arguments) == by_name

    def power(t: float, *, q: float) -> float:
        return float((1 - t) ** q)

    power.__annotations__["q"] = "OfAnotherModule"  # Only type checkers import it.
    for with_own in (
        igo.plan(power, **arguments, q=0.5),
        igo.plan(partial(power, q=0.5), **arguments),
    ):
        assert with_own.is_that_of(by_name.identity)
    assert not igo.plan(lambda t: (1 - t) ** 0.6, **arguments).is_that_of(by_name.identity)


def test_plain_numbers_whatever_they_came_as() -> None:
    plain = igo.plan("graduated", n=64, epochs=3, learning_rate=0.1, batch_size=8, p=0.5)
    values: Any = {"n": np.int64(64), "epochs": 3.0, "batch_size": np.int32(8)}
    from_numpy = igo.plan("graduated", **values, learning_rate=np.float64(0.1), p=np.float64(0.5))
    assert from_numpy == plain
    numbers = [value for row in from_numpy.table() for value in row.values()]
    kinds = {type(number) for number in (*numbers, from_numpy.n, from_numpy.warmup_samples)}
    assert kinds <= {int, float, type(None)}


def test_another_machines_rounding_is_the_same_plan_and_any_other_change_is_not() -> None:
    arguments: Any = {
        "n": 500,
        "epochs": 6,
        "learning_rate": 0.1,
        "batch_size": 16,
        "p": 0.5,
    }
    plan = igo.plan("graduated", **arguments)
    nudged = {**plan.identity, "rates": [rate * (1 + 1e-14) for rate in plan.identity["rates"]]}
    assert plan.is_that_of(nudged)
    assert plan.is_that_of(igo.plan("graduated", **{**arguments, "learning_rate": 1}).identity)
    for changed in (
        {"p": 0.5001},
        {"n": 501},
        {"batch_size": 15},
        {"epochs": 7},
        {"warmup_samples": 50},
        {"split": 0.7},
    ):
        assert not plan.is_that_of(igo.plan("graduated", **{**arguments, **changed}).identity), (
            changed
        )
    falls, rises = (
        igo.plan(lambda t, phis=phis: phis[round(3 * t)], n=500, batch_size=16, epochs=3, split=1)
        for phis in ((1, 0.7, 0.5), (1, 0.5, 0.7))
    )
    assert not falls.is_that_of(rises.identity), "the same rates in another order"


def test_what_is_perhaps_not_meant_is_said() -> None:
    arguments: Any = {"n": 64, "learning_rate": 0.1, "batch_size": 8, "p": 1, "split": 0}
    with pytest.warns(igo.PlanWarning, match="M = 1: .* more stages"):
        igo.plan("graduated", **arguments, epochs=1, stages=1)
    with pytest.warns(igo.PlanWarning, match="M = 5: .* more stages"):
        igo.plan("wsd", n=64, batch_size=8, epochs=5)
    with pytest.warns(igo.PlanWarning, match="b reaches n = 64 in stage 4 of 4"):
        igo.plan("graduated", **arguments, epochs=4)
    igo.plan("graduated", **arguments, epochs=4, max_batch_size=64)
    for b in (8, 64):  # Batches of all samples from the start are meant.
        igo.plan("constant", n=64, batch_size=b, epochs=1)
    igo.plan(lambda t: 0.5 if 0 < t < 0.6 else 1, n=64, batch_size=8, epochs=4)  # It goes up again.


HALF_COSINE: Any = lambda step: (1 + math.cos(math.pi * step / 1000)) / 2  # noqa: E731
UNITS: list[tuple[str, dict[str, Any]]] = [  # what is meant for updates, epochs or per cent
    (
        r"256 for 1, 512 for 0, 1,024 for 977; .* samples",
        {"batch_size": {0: 256, 10: 512, 50: 1024}},
    ),
    ("256 for 1, 512 for 1,953;", {"batch_size": {0: 256, 1: 512}}),
    ("256 for 2, 512 for 1, 1,024 for 976;", {"batch_size": {0: 256, 500: 512, 1000: 1024}}),
    ("256 for 4, 512 for 8, 1,024 for 972;", {"batch_size": {0: 256, 1000: 512, 5000: 1024}}),
    ("M = 100: φ changes by 2.*; a curve gets t, .* no epoch", {"profile": HALF_COSINE}),
    ("M = 20: η changes by 0.0", {"rate": lambda epoch: 0.95**epoch, "stages": 20}),
    (
        "η changes by 2.*e-06",
        {"rate": HALF_COSINE, "batch_size": {0: 16, 0.5: 32}, "clock": "updates"},
    ),
    ("b changes by 0", {"rate": "cosine", "batch_size": lambda epoch: 64 + epoch}),
]


def test_a_curve_in_another_unit_is_said() -> None:
    for words, arguments in UNITS:
        profile = {} if "rate" in arguments else {"profile": "constant"}
        with pytest.warns(igo.PlanWarning, match=words):
            igo.plan(**{"samples": 10**6, "batch_size": 256, **profile, **arguments})


def test_a_rate_may_be_0_in_the_last_update() -> None:
    """As PyTorch's CosineAnnealingLR and PolynomialLR, stepped after each of ten updates, end."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    for scheduler in (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9),
        torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=9, power=2),
    ):
        rates = []
        for _ in range(10):
            rates += scheduler.get_last_lr()
            optimizer.step()
            scheduler.step()
        optimizer.param_groups[0]["lr"] = 1.0
        curve = {round(t, 1): rate for t, rate in zip(np.arange(0, 1, 0.1), rates, strict=True)}
        for stages in (10, 5):  # The last update has a row of its own, or is one of a row's.
            plan = igo.plan(
                rate=lambda t, curve=curve: curve[round(t, 1)],
                clock="updates",
                samples=10,
                batch_size=1,
                stages=stages,
            )
            assert [update.learning_rate for update in updates_of(plan)] == rates
            assert str(plan)
        assert rates[-1] == 0 < rates[-2]


def test_a_noise_near_the_smallest_float_has_batches_of_all_samples() -> None:
    """φ = 2^-599 at split 0: b_1/b = φ² is no float above 0."""
    plan = igo.plan(
        "step", gamma=0.5, n=100, epochs=600, batch_size=10, split=0, max_batch_size=100
    )
    assert [row.batches for row in plan.rows] == [10, 3, 1] + [1] * 597
    assert plan.rows[-1].eta_m == pytest.approx(0.5**599 * math.sqrt(10))


def test_no_batch_is_above_b_1_however_many_there_are() -> None:
    for n, b in itertools.product((10**10, 10**10 + 3, 10**13), (7, 3)):
        large = igo.plan("constant", n=n, epochs=1, batch_size=b)
        assert large.batch_sizes[0] == b
        assert large.rows[0].batches == -(-n // b)


def test_m_is_the_smallest_number_with_which_the_bound_reaches_epsilon() -> None:
    """The published M^p = 1/(α_0 ε); 1/(α_0 M^p) is the bound after M rounds."""
    for product, p in itertools.product((2.0, 0.5, 1 / 3, 0.3, 0.2, 0.1), (0.25, 0.5, 1.0)):
        m = next(m for m in range(1, 20_000) if m**p * product >= 1 - 1e-12)
        assert stages_for(product / 4, 4.0, p) == m


def test_alpha_0_is_the_printed_minimum() -> None:
    constants = {"learning_rate": 0.2, "batch_size": 9, "variance": 4.0}
    steep = alpha_0(**constants, lipschitz=3, width=2, sigma=0.1)
    assert steep == pytest.approx(math.sqrt(9) / (4 * 3 * 0.2 * 2 * (1 + 2)))
    curved = alpha_0(**constants, lipschitz=0.01, width=1, sigma=8)
    assert curved == pytest.approx(math.sqrt(9) / (math.sqrt(2 * 8) * 0.2 * 2))
    with pytest.raises(ValueError, match="sigma=0"):
        alpha_0(**constants, lipschitz=1, width=1, sigma=0)


def test_full_batches_follow_the_stages_as_they_are() -> None:
    """Stage M + 1, also where stages begin inside epochs, as with Algorithm 3's lengths."""
    for stages, h in ((3, None), (8, None), (3, 0), (3, 0.1)):
        arguments: Any = {"n": 60, "epochs": 4, "batch_size": 4, "stages": stages}
        lengths: Any = {} if h is None else {"h": h}
        stages_alone = igo.plan("linear", **arguments, algorithm3=lengths)
        plan = igo.plan("linear", **arguments, algorithm3=lengths | {"final_updates": 2})

        def rows_of(plan: igo.Plan) -> list[Any]:
            return [
                (u.epoch, u.stage, u.start, u.batch_size, u.learning_rate) for u in updates_of(plan)
            ]

        updates = rows_of(stages_alone)
        rate = updates[-1][-1]
        ends = [(epoch, stages + 1, 0, 60, rate) for epoch in (5, 6)]
        assert rows_of(plan) == updates + ends
