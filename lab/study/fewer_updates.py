"""The study of results/fewer_updates.md: a growing batch beside a tuned cosine, at equal epochs."""

import itertools
from collections.abc import Iterator
from operator import itemgetter

from lab.study import records
from lab.study.design import Job, Runs
from lab.study.records import Settings

SEEDS, LEAST = range(300, 340), 32
TUNED, RATES = range(900, 903), (0.1, 0.2, 0.4, 0.8, 1.6)
LENGTHS = (20, 80)  # epochs
CAP = {"max_batch_size": 500}  # n/4, of all arms whose b grows
COSINE = {"schedule": "cosine", "split": 1}
ARMS: dict[str, tuple[Settings, float]] = {  # settings; epochs relative to the length
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


def settings(job: Job) -> Settings:
    """The settings of a run."""
    arm, share = ARMS[job["arm"]]
    return {
        "experiment": "path",
        **arm,
        "epochs": round(job["length"] * share),
        "learning_rate": job["rate"],
        "seed": job["seed"],
    }


def best_rate(arm: str, length: int, runs: Runs) -> float | None:
    """η_1 of the highest mean accuracy; None while a run of the tuning is missing."""
    scores = {}
    for rate in RATES:
        tried = (job_of(arm, length, rate, seed) for seed in TUNED)
        scores[rate] = STUDY.mean(tried, runs, "end_accuracy")
    return None if None in scores.values() else max(scores, key=lambda rate: scores[rate] or 0.0)


def jobs(runs: Runs) -> Iterator[Job]:
    """The tuning of each arm and length, and after all tunings the seeds, each whole in turn."""
    best_rates = {}
    for arm, length in itertools.product(ARMS, LENGTHS):
        for rate, seed in itertools.product(RATES, TUNED):
            yield job_of(arm, length, rate, seed)
        best = best_rate(arm, length, runs)
        if best is not None:
            best_rates[arm, length] = best
    if len(best_rates) == len(ARMS) * len(LENGTHS):
        for seed, ((arm, length), rate) in itertools.product(SEEDS, best_rates.items()):
            yield job_of(arm, length, rate, seed)


STUDY = records.study("fewer_updates", jobs, settings, SEEDS, LEAST, itemgetter("arm", "length"))
