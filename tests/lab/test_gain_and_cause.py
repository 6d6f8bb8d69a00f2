"""What the pages of the two studies say follows from the records, by other libraries."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from lab.study import __main__ as program
from lab.study import cause, cause_page, design, fewer_updates, fewer_updates_page, records
from lab.study.design import ROOT, Record
from lab.study.table import between

N = 10  # seeds
B, NEAREST = "cosine, b = 32", "cosine, 0.7 of the epochs"
RATIOS = {
    "cosine, split ½": 0.71,
    "cosine, split 0": 0.62,
    B: 0.6,
    NEAREST: 0.7,
    "cosine, 0.5 of the epochs": 0.50,
}


@pytest.mark.slow
@pytest.mark.parametrize("page", program.PAGES)
def test_the_pages_show_the_archives(page: Any) -> None:
    records, name = page.STUDY.archived(), page.STUDY.name
    if text := page.summary(records):
        assert between((ROOT / "results" / f"{name}.md").read_text()) == text
        for file, table in page.TABLES.items():
            assert (ROOT / "results" / file).read_text() == table(records)
    if page is fewer_updates_page:
        assert between((ROOT / "README.md").read_text()) == page.readme(records)


@pytest.mark.parametrize(
    ("half", "zero", "batch", "short", "called"),
    [
        (0.0, 0.1, -1.0, -1.0, ("a gain", "a gain")),
        (0.0, -0.1, 0.0, -0.1, (fewer_updates_page.CALLED[True, False],) * 2),
        (
            -1.0,
            0.0,
            -3.0,
            2.0,
            (fewer_updates_page.CALLED[False, True], fewer_updates_page.CALLED[True, False]),
        ),
        (2.0, -2.0, 2.0, -2.0, (fewer_updates_page.CALLED[False, False],) * 2),
    ],
)
def test_a_growing_batch_gains_if_it_is_equal_and_above_training_less(
    half: float, zero: float, batch: float, short: float, called: tuple[str, str]
) -> None:
    """p-values by statsmodels' TOST and Holm, and SciPy's exact test of paired permutations."""
    random = np.random.default_rng(0)
    base = 60 + random.normal(size=N)
    means = {
        "cosine": 0.0,
        "cosine, split ½": half,
        "cosine, split 0": zero,
        B: batch,
        NEAREST: short,
        "cosine, 0.5 of the epochs": 50.0,
    }
    ends = {name: base + mean + random.normal(0, 0.3, N) for name, mean in means.items()}
    claims = fewer_updates_page.judged(ends, RATIOS)
    assert [claim.second for claim in claims] == ["cosine", "cosine", B, NEAREST]
    differences = [ends[claim.first] - ends[claim.second] for claim in claims]
    equal = [DescrStatsW(d).ttost_mean(-0.5, 0.5)[0] for d in differences[:2]]
    flips = stats.permutation_test
    above = [
        flips((d,), np.mean, permutation_type="samples", n_resamples=2**N + 1).pvalue
        for d in differences[2:]
    ]
    adjusted = [*multipletests(equal, method="holm")[1], *multipletests(above, method="holm")[1]]
    p = [claim.pair.p_equal_holm if claim.family == "A" else claim.pair.p_holm for claim in claims]
    assert p == pytest.approx(adjusted)
    assert tuple(fewer_updates_page.outcomes(claims).values()) == called


def test_a_failed_run_counts_as_chance_and_has_no_updates() -> None:
    machine = {"versions": {"torch": "2"}, "hardware": {"cpu": "x", "instructions": "y"}}
    epoch = {"test/accuracy": 0.6, "train/accuracy": 0.9, "train/loss": 0.1, "updates": 70}
    failed_run, finished_run = (
        records.record_of(
            {
                "status.json": json.dumps(machine | {"state": state}),
                "metrics.jsonl": json.dumps(epoch) + "\n",
                "after.json": json.dumps({"anew_accuracy": 61.0}),
            }
        )
        for state in ("failed", "finished")
    )
    arms = {(name, 80): [failed_run, finished_run] for name in fewer_updates.ARMS}
    for endpoint, accuracy in (("running", 60), ("fresh", 61)):
        ends = fewer_updates_page.ends(arms, 80, endpoint)
        assert ends["cosine"] == pytest.approx([10, accuracy])
    assert fewer_updates_page.updates(arms, "cosine") == 70
    assert failed_run["cpu"] == finished_run["cpu"] == "x, y"


def test_a_seed_of_the_cause_has_the_arms_of_its_protocol() -> None:
    """The best η of even's tuning is one more arm; the first ten seeds have two more."""
    runs: dict[str, Record] = {}
    while jobs := cause.STUDY.missing(runs):
        for job in jobs:
            end = 60 - abs(job["rate"] - 1.6)
            runs[design.key(job)] = {"fresh": end, "cpu": "x", "torch": "2"}
    arms = cause.STUDY.arms(runs)
    assert {name: len(of_arm) for name, of_arm in arms.items()} == {
        **{name: 10 if name in cause.ESTIMATED else 40 for name in cause.ARMS},
        cause.BEST: 40,
    }
    assert sum(run["fresh"] == 60 for run in runs.values()) == 8 + 40


def test_the_claims_on_the_cause_are_judged_where_training_has_ended() -> None:
    """And with enough seeds."""
    random = np.random.default_rng(1)
    shift = {"avg": 1.5, "smoothed": 0.0}

    def run(name: str, seed: int, train: float) -> dict[str, Any]:
        fresh = 60 + 0.1 * seed + shift.get(name, 0.0) + random.normal(0, 0.2)
        return {"fresh": fresh, "annealed": fresh, "train": train, "finite": True}

    arms = {
        name: [run(name, seed, 96 if name == "m2" else 98) for seed in range(cause.LEAST)]
        for name in cause.ARMS
    }
    arms[cause.BEST] = arms["even"]
    claims, tests, verdicts = cause_page.judged(arms)
    assert dict(zip([claim.name for claim in claims], verdicts, strict=True)) == {
        "avg − even": "higher",
        "avg − flat": "higher",
        "avg − m2": "not judged: not trained to the end",
        "smoothed − k8": "equal",
        f"avg − {cause.BEST}": "higher",
    }
    avg, even = (np.mean([run["fresh"] for run in arms[name]]) for name in ("avg", "even"))
    assert tests[0].difference == pytest.approx(avg - even)
    *_, verdicts = cause_page.judged({name: of_arm[:-1] for name, of_arm in arms.items()})
    assert {*verdicts} == {"not judged: too few seeds"}
