"""What the pages of the two studies say follows from the records, by other libraries."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from lab.study import cause, cause_page, fewer_updates, fewer_updates_page, records
from lab.study.records import ROOT, Run
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
def test_the_pages_show_the_archives() -> None:
    runs = records.of_archives()
    for page, text in {
        "README.md": fewer_updates_page.readme(runs),
        "results/fewer_updates.md": fewer_updates_page.summary(runs),
        "results/cause.md": cause_page.summary(cause.archived()),
    }.items():
        assert between((ROOT / page).read_text()) == text
    for file, text in {
        "fewer_updates_tuning.csv": fewer_updates_page.tuning(runs),
        "cause_estimates.csv": cause_page.estimates(cause.archived()),
        "cause_means.csv": cause_page.means(cause.archived()),
        "cause_stages.csv": cause_page.stages(cause.archived()),
    }.items():
        assert (ROOT / "results" / file).read_text() == text


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


def test_a_failed_run_counts_as_chance_and_stays_in_the_archive() -> None:
    arms = [
        fewer_updates.settings(*case, 0.4) for case in itertools.product(fewer_updates.ARMS, (20,))
    ]
    runs: dict[str, Run] = {}
    for arm in arms:
        name = records.name_of(fewer_updates.EXPERIMENT, arm, 300)
        status = {
            "state": "finished" if runs else "failed",
            "versions": {"torch": "2"},
            "hardware": {"cpu": "x", "instructions": "y"},
        }
        files = {"status.json": json.dumps(status)}
        if runs:
            files["metrics.jsonl"] = json.dumps({"test/accuracy": 0.6}) + "\n"
        runs[name] = Run(name, files)
    accuracies = [fewer_updates.accuracy(arm, 300, runs) for arm in arms]
    assert accuracies == pytest.approx([10, *[60] * 8])
    assert fewer_updates.whole(300, arms, runs) == runs
    assert not fewer_updates.whole(300, arms, dict(list(runs.items())[1:]))
    status_of_other = json.loads(runs[name].files["status.json"]) | {"versions": {"torch": "3"}}
    runs[name] = Run(name, runs[name].files | {"status.json": json.dumps(status_of_other)})
    assert not fewer_updates.whole(300, arms, runs)


def test_the_claims_on_the_cause_are_judged_where_training_has_ended() -> None:
    """And with enough seeds."""
    random = np.random.default_rng(1)
    shift = {"avg": 1.5, "smoothed": 0.0}

    def run(name: str, seed: int, train: float) -> dict[str, Any]:
        fresh = 60 + 0.1 * seed + shift.get(name, 0.0) + random.normal(0, 0.2)
        return {"arm": name, "seed": seed, "fresh": fresh, "train": train, "finite": True}

    runs = {
        name: [run(name, seed, 96 if name == "m2" else 98) for seed in range(cause.LEAST)]
        for name in cause.ARMS
    }
    runs[cause_page.BEST] = runs["even"]
    judged = cause_page.judged(runs)
    verdicts = {(arm, other_arm): verdict for arm, other_arm, _, verdict in judged}
    assert verdicts == {
        ("avg", "even"): "higher",
        ("avg", "flat"): "higher",
        ("smoothed", "k8"): "equal",
        ("avg", "m2"): "not judged: not trained to the end",
        ("avg", cause_page.BEST): "higher",
    }
    avg, even = (np.mean([run["fresh"] for run in runs[name]]) for name in ("avg", "even"))
    assert judged[0][2].difference == pytest.approx(avg - even)
    judged_few = cause_page.judged({name: of_arm[:-1] for name, of_arm in runs.items()})
    assert {verdict for *_, verdict in judged_few} == {"not judged: too few seeds"}
