"""What results/fewer_updates.md adds post hoc: cosine at a larger η_1, and b = 32 with √cosine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter

import numpy as np

import igo
from igo.config.load import make_plan
from igo.plans.plan import Plan
from lab.study import fewer_updates, images, judged, records, table
from lab.study.design import RUNS, Job, Record, Runs, Study, best, search
from lab.study.fewer_updates import LENGTHS, RATES, TUNED

SEEDS = range(300, 332)  # The study has the same.
AGAIN = range(300, 308)  # Their arms are trained again: this machine may be of another kind.
LENGTH = LENGTHS[-1]
CONTROL = "√cosine, b = 32"
SPLIT, SPLIT_RATE = "cosine, split ½", 0.4  # The control has its curve of η.
HALF_AS_LONG = "cosine, 0.5 of the epochs"
REPEATED = (("cosine", 0.2), (SPLIT, SPLIT_RATE))
ENDPOINTS = {"running": "running", "fresh": "fresh"}
PARTS = 5  # equal parts of the epochs, of which a record tells


def jobs(runs: Runs) -> Iterator[Job]:
    """The tuning of the control, and the seeds."""

    def accuracies(rate: float) -> list[float] | None:
        return STUDY.scores(_jobs([(CONTROL, rate)], TUNED), runs, "running")

    by_rate = search(RATES, 2, accuracies)
    for rate in by_rate:
        yield from _jobs([(CONTROL, rate)], TUNED)
    tuned = best(by_rate)
    if tuned is None:
        return
    arms = [("cosine", 0.4), ("cosine", 0.8), (CONTROL, SPLIT_RATE)]
    arms += [(CONTROL, tuned)] if tuned != SPLIT_RATE else []
    for seed in SEEDS:
        yield from _jobs(arms, [seed])
        if seed in AGAIN:
            yield from _jobs(REPEATED, [seed])


def _jobs(arms: Iterable[tuple[str, float]], of_seeds: Iterable[int]) -> Iterator[Job]:
    for seed in of_seeds:
        for arm, rate in arms:
            yield {"arm": arm, "rate": rate, "seed": seed}


def train(job: Job, _: Runs) -> Record:
    """A run as those of the study, but for the control's plan."""
    images.require([f"ten/{job['seed']}"], f"ten {job['seed']} 1")
    control = job["arm"] == CONTROL
    arm = {"arm": "cosine, b = 32"} if control else {}
    config = records.config_of(fewer_updates.settings({**job, **arm, "length": LENGTH}))
    config = replace(config, runs_dir=str(RUNS / ("root" if control else "afterwards")))
    plan = root_cosine(config.batch_size, config.dataset.samples) if control else make_plan(config)
    run = records.trained(config, plan)
    ends = {"running": run["end_accuracy"], "fresh": run["anew_accuracy"]}
    if not run["finite"]:
        return ends
    updates = np.diff([0, *(epoch["updates"] for epoch in run["epochs"])])
    rates = updates * [epoch["eta_m"] for epoch in run["epochs"]]
    deltas = np.array([epoch["delta_measured"] for epoch in run["epochs"]], dtype=float)
    return {
        **ends,
        "updates": run["epochs"][-1]["updates"],
        "rates": rates.reshape(PARTS, -1).sum(1).tolist(),  # Σ η of each part
        "deltas": np.nanmean(deltas.reshape(PARTS, -1), axis=1).tolist(),  # δ, as measured
    }


def root_cosine(b: int, n: int) -> Plan:
    """The η of split ½ of a cosine, at a constant b."""
    return igo.plan(
        rate=lambda share: math.sqrt((1 + math.cos(math.pi * share)) / 2),
        n=n,
        epochs=LENGTH,
        batch_size=b,
        stages=LENGTH,
    )


def summary(runs: Runs, arms_of_study: Mapping[str, Sequence[Record]]) -> str:
    """The tables of the page, beside the longest runs of the study; empty without whole seeds."""
    arms = STUDY.arms(runs)
    if not arms:
        return ""
    found, lines = {**arms_of_study}, []
    for (name, rate), of_arm in arms.items():
        named = name + (" again" if (name, rate) in REPEATED else f", η₁ = {rate:g}")
        found[named] = of_arm
        ended = [record for record in of_arm if "rates" in record]
        rates, delta = (np.mean([record[what] for record in ended]) for what in ("rates", "deltas"))
        accuracy, updates = judged.ends(of_arm, "running").mean(), ended[0]["updates"]
        costs = f"{accuracy:.2f}", f"{updates:,}", f"{PARTS * rates:,.0f}", f"{delta:.3f}"
        lines.append([named, str(len(of_arm)), *costs])
    cosines = ("cosine", "cosine, η₁ = 0.4", "cosine, η₁ = 0.8")
    n = len(found[cosines[1]])
    highest = max(cosines, key=lambda name: judged.ends(found[name][:n], "running").mean())
    pairs = [(f"{name} again", name) for name, _ in REPEATED]
    beside_highest = (SPLIT, "cosine, split 0", "Method 3", "cosine, b = 32", HALF_AS_LONG)
    pairs += itertools.product(cosines[1:], cosines[:1])
    pairs += itertools.product(beside_highest, [highest])
    pairs += [(SPLIT, name) for name in found if name.startswith(CONTROL)]
    differences = []
    for one, other in pairs:
        difference = judged.claim(f"{one} − {other}", found[one], found[other], ENDPOINTS)
        cells = [table.mean_with_interval(sample) for sample in difference.differences.values()]
        differences.append([difference.name, str(len(difference.judged)), *cells])
    head = [f"post hoc, later: {LENGTH} epochs", "n", *ENDPOINTS]
    first_table = table.markdown(head, differences)
    head = ["differs in", "n", "%", "updates", "Σ η", "mean δ"]
    return f"{first_table}\n{table.markdown(head, lines)}"


STUDY = Study("fewer_updates_afterwards", jobs, train, SEEDS, itemgetter("arm", "rate"))
