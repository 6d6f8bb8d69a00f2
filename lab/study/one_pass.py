"""The study of results/one_pass.md: a growing batch where each sample is new, at one curve of η.

The program that tuned its arms and measured B is that of commit 746f4bd6.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

import numpy as np

import igo
from lab.study import language
from lab.study.design import Job, Record, Runs, Study, archive_of
from lab.study.language import SAMPLES

SEEDS, LEAST = range(24), 20
STAGES = 64
Curve = tuple[float, float, float]  # the shares of the rise and of the fall; where the rise starts
Sizes = Mapping[float, float]  # b/b_1 by the share of the samples at which it begins
SHORT: Curve = (0.03, 0.4, 0.0)  # The naive ramp has it.
MOST = 256  # the largest b
FAMILIES: dict[str, Sizes] = {
    "root": {1 / 16: 2, 1 / 4: 4},  # b ∝ √t
    "early": {1 / 16: 2, 1 / 8: 4, 1 / 4: 8, 1 / 2: 16},  # b ∝ t
    "late": {0.6: 2, 0.8: 4, 0.9: 8},  # while η falls
    "even": {1 / 4: 2, 1 / 2: 4, 3 / 4: 8},
}
MEASURED_ROOT = "√B"  # one more family: b ∝ the root of the measured noise scale
MIDDLE = 22  # Every family has a ramp with as many updates as a constant of this b.
JUDGED = ("root", MEASURED_ROOT, "late", "early")  # at MIDDLE
Arm = tuple[str, int]  # a family, and b or, of a ramp, the constant b that has its updates


def level(curve: Curve, share: float) -> float:
    """η over its peak, at a share of the samples: a rise to 1, and a fall to 0."""
    rise, fall, start = curve
    return min(1.0, start + (1 - start) * share / rise, (1 - share) / fall)


def plan_of(curve: Curve, b: int, sizes: Sizes, naive: bool = False) -> igo.Plan:
    """The plan of an arm, with η in 64 equal stages, each that of the curve at its middle.

    ``sizes`` has b over the first b. A naive ramp has the curve for η/√b: η rises with √b.
    """
    first = level(curve, 0.5 / STAGES)

    def size_at(share: float) -> float:
        grown = max((size for start, size in sizes.items() if start <= share), default=1.0)
        return min(b * grown, MOST)

    def relative(share: float) -> float:
        rise = math.sqrt(size_at(share) / b) if naive else 1.0
        return rise * level(curve, share + 0.5 / STAGES) / first

    # Where all sizes are whole numbers, a table has each stage begin exactly where b changes. Other
    # sizes are given as a function, and b changes at the next of the 64 stages.
    table = {0.0: b} | {start: round(size_at(start)) for start in sizes}
    is_whole = all(math.isclose(size_at(start), size) for start, size in table.items())
    return streamed(relative, table if is_whole else size_at)


def streamed(rate: Callable[[float], float], batch_size: Any) -> igo.Plan:
    """The plan of a single pass."""
    with warnings.catch_warnings():
        # It warns that b may be constant, and where batches are few.
        warnings.simplefilter("ignore", igo.PlanWarning)
        return igo.plan(
            rate=rate, batch_size=batch_size, samples=SAMPLES, max_batch_size=MOST, stages=STAGES
        )


def almost_constant(updates: int) -> tuple[int, Sizes]:
    """b, and the share of the samples from which on it is b + 1, for so many updates.

    With this share they are SAMPLES (share/b + (1 − share)/(b + 1)).
    """
    b = SAMPLES // updates
    share = (updates / SAMPLES - 1 / (b + 1)) * b * (b + 1)
    return b, {share: (b + 1) / b}


def root_of(records: Iterable[Record]) -> Sizes:
    """√(B/B_0) at the beginning of each stage, by the runs that measured B; it never falls.

    log B is the mean over the runs, and linear between the shares at which B was measured.
    """
    logs: dict[float, list[float]] = {}
    for record in records:
        for share, scale in record["noise_scales"]:
            if scale:  # None is a scale that could not be measured.
                logs.setdefault(round(share, 2), []).append(math.log(scale))
    shares = sorted(logs)
    means = np.maximum.accumulate([np.mean(logs[share]) for share in shares])
    stages = np.arange(1, STAGES) / STAGES
    grown = np.exp((np.interp(stages, shares, means) - means[0]) / 2)  # Half a logarithm is a root.
    return dict(zip(stages.tolist(), grown.tolist(), strict=True))


def sizes_of(arm: Arm, runs: Runs) -> tuple[int, Sizes]:
    """b_1 and the sizes of an arm; b_1 of a ramp is the whole number that is nearest to its b."""
    family, b = arm
    if family == "constant":
        return b, {}
    # The curve of η does not matter to the number of updates.
    if family.startswith("beside "):  # a constant with the updates of a ramp
        of_ramp = sizes_of((family.removeprefix("beside "), b), runs)
        return almost_constant(plan_of(SHORT, *of_ramp).updates)
    if family == MEASURED_ROOT:
        sizes = root_of(run for run in runs.values() if run["job"]["arm"] == "measured")
    else:
        sizes = FAMILIES["root" if family == "naive" else family]
    updates = {size: plan_of(SHORT, size, sizes).updates for size in range(1, b + 1)}
    return min(updates, key=lambda size: abs(updates[size] - SAMPLES / b)), sizes


def jobs(_: Runs) -> Iterator[Job]:
    """Each seed has the arms of the first one, whose settings were tuned."""
    first = [record["job"] for record in archive_of("one_pass")]
    for seed in SEEDS:
        yield from ({**job, "seed": seed} for job in first if job["seed"] == SEEDS[0])


def train(job: Job, runs: Runs) -> Record:
    """One run of the language model."""
    curve: Curve = (job["rise"], job["fall"], job["start"])
    b, sizes = sizes_of((job["arm"], job["b"]), runs)
    plan = plan_of(curve, b, sizes, naive=job["arm"] == "naive")
    rate = job["peak"] * level(curve, 0.5 / STAGES)
    return {"b_1": b, **language.trained(plan, job["seed"], rate, job["beta2"])}


STUDY = Study("one_pass", jobs, train, SEEDS, LEAST, itemgetter("arm", "b"))
