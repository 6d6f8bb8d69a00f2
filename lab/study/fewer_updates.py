"""The study of results/fewer_updates.md: a growing batch beside a tuned cosine, at equal epochs.

``run`` tunes η_1 of each arm and length, then trains whole seeds; started once for each core, the
processes share the runs.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from igo.ground.errors import Busy, UserError
from lab.study import images, records, seeds
from lab.study import rows as study
from lab.study.records import RUNS, Arm, Run

EXPERIMENT, NAME = "path", "fewer_updates"
SEEDS = range(300, 340)
TUNED, RATES = range(900, 903), (0.1, 0.2, 0.4, 0.8, 1.6)
LENGTHS = (20, 80)  # epochs
CAP = {"max_batch_size": 500}  # n/4, of all arms whose b grows
COSINE: Arm = {"schedule": "cosine", "split": 1}
ARMS: dict[str, tuple[Arm, float]] = {  # settings, and epochs relative to the length
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
CHANCE = 10.0  # % that a run counts whose loss is not finite


def settings(name: str, length: int, rate: float) -> Arm:
    """The settings of an arm at a training length with this η_1."""
    arm, share = ARMS[name]
    return arm | {"epochs": round(length * share), "learning_rate": rate}


def ended() -> dict[str, Run]:
    """The runs that have ended, of the archive and of the folders, by name."""
    runs = records.of_archives(pattern=f"{NAME}.tar.xz")
    runs |= records.of_folders(RUNS, ("finished", "failed"))
    # One that was stopped before its end was measured goes on there.
    return {name: run for name, run in runs.items() if run.after or run.status["state"] == "failed"}


def accuracy(
    arm: Arm, seed: int, runs: Mapping[str, Run], endpoint: str = "end_accuracy"
) -> float | None:
    """Test accuracy at the end, in %; None where the run has not ended."""
    run = runs.get(records.name_of(EXPERIMENT, arm, seed))
    if run is None:
        return None
    return CHANCE if run.status["state"] == "failed" else study.endpoint(run, endpoint)


def tuned(name: str, length: int, runs: Mapping[str, Run]) -> dict[float, float | None]:
    """Mean accuracy by η_1, None where a run is missing. A best at an edge adds a value."""
    means: dict[float, float | None] = {}
    for rate in RATES:
        means[rate] = _mean(name, length, rate, runs)
    while all(mean is not None for mean in means.values()):
        best = max(means, key=lambda rate: means[rate] or 0)
        if best == min(means):
            added = best / 2
        elif best == max(means):
            added = best * 2
        else:
            break
        means[added] = _mean(name, length, added, runs)
    return dict(sorted(means.items()))


def _mean(name: str, length: int, rate: float, runs: Mapping[str, Run]) -> float | None:
    arm = settings(name, length, rate)
    of_seeds = [accuracy(arm, seed, runs) for seed in TUNED]
    accuracies = [value for value in of_seeds if value is not None]
    return float(np.mean(accuracies)) if len(accuracies) == len(TUNED) else None


def chosen(name: str, length: int, runs: Mapping[str, Run]) -> Arm | None:
    """The arm at its best η_1; None while the tuning has not ended."""
    means = tuned(name, length, runs)
    if any(mean is None for mean in means.values()):
        return None
    return settings(name, length, max(means, key=lambda rate: means[rate] or 0))


def wanted(runs: Mapping[str, Run]) -> Iterator[tuple[int, Arm]]:
    """The runs that are missing: of the tuning, and after it of the seeds, each whole in turn."""
    cases = [*itertools.product(ARMS, LENGTHS)]
    arms = [chosen(name, length, runs) for name, length in cases]
    if None in arms:
        for name, length in cases:
            rates = [rate for rate, mean in tuned(name, length, runs).items() if mean is None]
            jobs: Iterator[tuple[int, float]] = itertools.product(TUNED, rates)
            for seed, rate in jobs:
                arm = settings(name, length, rate)
                if accuracy(arm, seed, runs) is None:
                    yield seed, arm
        return
    for seed, chosen_arm in itertools.product(SEEDS, arms):
        if chosen_arm is not None and accuracy(chosen_arm, seed, runs) is None:
            yield seed, chosen_arm


def whole(seed: int, arms: Sequence[Arm], runs: Mapping[str, Run]) -> dict[str, Run]:
    """The runs of a seed; none unless all arms have ended, on machines of one kind."""
    names = [records.name_of(EXPERIMENT, arm, seed) for arm in arms]
    runs_of_seed = {name: runs[name] for name in names if name in runs}
    one_kind = len({run.machine for run in runs_of_seed.values()}) == 1
    return runs_of_seed if len(runs_of_seed) == len(names) and one_kind else {}


def kept(runs: Mapping[str, Run]) -> dict[str, Run]:
    """What the archive has: the runs of the tuning, and those of whole seeds."""
    cases = [*itertools.product(ARMS, LENGTHS)]
    tried = [settings(*case, rate) for case in cases for rate in tuned(*case, runs)]
    names = [records.name_of(EXPERIMENT, arm, seed) for seed in TUNED for arm in tried]
    runs_kept = {name: runs[name] for name in names if name in runs}
    arms = [arm for case in cases if (arm := chosen(*case, runs))]
    if len(arms) == len(cases):
        for seed in SEEDS:
            runs_kept |= whole(seed, arms, runs)
    return runs_kept


def run(_: list[str]) -> None:
    """Train what is missing, without showing a result; what is archived is done."""
    torch.set_num_threads(1)
    for seed_range in (TUNED, SEEDS):
        images.require(
            (f"ten/{seed}" for seed in seed_range), f"ten {seed_range[0]} {len(seed_range)}"
        )
    while jobs := [*wanted(ended())]:
        trained_jobs = 0
        for seed, arm in jobs:
            try:
                seeds.one(EXPERIMENT, arm, seed, None)
                trained_jobs += 1
            except Busy:  # another process trains it
                pass
            except UserError as error:
                print(f"seed {seed}, {arm}: {error}", file=sys.stderr, flush=True)
        if not trained_jobs:
            time.sleep(10)
