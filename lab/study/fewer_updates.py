"""The study of results/fewer_updates.md: a growing batch beside a tuned cosine, at equal epochs."""

import itertools
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from lab.study import records
from lab.study.design import Job, Runs, Scores, best, search

SEEDS, LEAST = range(300, 340), 32
TUNED, RATES = range(900, 903), (0.1, 0.2, 0.4, 0.8, 1.6)
LENGTHS = (20, 80)  # epochs
CAP = {"max_batch_size": 500}  # n/4, of all arms whose b grows
COSINE = {"schedule": "cosine", "split": 1}
ARMS: dict[str, tuple[dict[str, Any], float]] = {  # settings; epochs relative to the length
    "cosine": (COSINE, 1),
    "cosine, split ½": ({"schedule": "cosine", "split": 0.5} | CAP, 1),
    "cosine, split 0": ({"schedule": "cosine", "split": 0} | CAP, 1),
    "Method 3": ({"schedule": "method3"} | CAP, 1),
    "WSD": ({"schedule": "wsd", "split": 1}, 1),
    "Method 1": ({"schedule": "method1"}, 1),
    "cosine, b = 32": (COSINE | {"batch_size": 32}, 1),
    "cosine, 0.7 of the epochs": (COSINE, 0.7),
    "cosine, 0.5 of the epochs": (COSINE, 0.5),
}


def job_of(arm: str, length: int, rate: float, seed: int) -> Job:
    """A run of an arm at a training length with this η_1."""
    return {"arm": arm, "length": length, "rate": rate, "seed": seed}


def settings(job: Job) -> dict[str, Any]:
    """The settings of a run."""
    arm, share = ARMS[job["arm"]]
    epochs = {"epochs": round(job["length"] * share)}
    return {
        "experiment": "path",
        **arm,
        **epochs,
        "learning_rate": job["rate"],
        "seed": job["seed"],
    }


def tuning(arm: str, length: int, runs: Runs) -> Scores:
    """The accuracy of the tuning by η_1."""

    def accuracy(rate: float) -> float | None:
        tried = (job_of(arm, length, rate, seed) for seed in TUNED)
        return STUDY.mean(tried, runs, "end_accuracy")

    return search(RATES, 2, accuracy)


def jobs(runs: Runs) -> Iterator[Job]:
    """The tuning of each arm and length, and after it the seeds, each whole in turn."""
    best_rates: dict[tuple[str, int], Any] = {}
    for arm, length in itertools.product(ARMS, LENGTHS):
        scores = tuning(arm, length, runs)
        best_rates[arm, length] = best(scores)
        for rate, seed in itertools.product(scores, TUNED):
            yield job_of(arm, length, rate, seed)
    if None not in best_rates.values():
        for seed, (arm, length) in itertools.product(SEEDS, best_rates):
            yield job_of(arm, length, best_rates[arm, length], seed)


STUDY = records.study("fewer_updates", jobs, settings, SEEDS, LEAST, itemgetter("arm", "length"))
