"""The study of results/one_pass.md: a growing batch where each sample is new, at one curve of η."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

import igo
from lab.study import language
from lab.study.design import Job, Record, Runs, Scores, Study, best, key, search
from lab.study.language import SAMPLES

SEEDS, LEAST, TUNED = range(24), 20, range(900, 903)
STAGES = 64
Curve = tuple[float, float, float]  # the shares of the rise and of the fall; where the rise starts
Sizes = Mapping[float, float]  # b/b_1 by the share of the samples at which it begins
CURVES: list[Curve] = [*itertools.product((0.03, 0.12, 0.25, 0.5), (0.2, 0.4, 0.6), (0.0, 0.25))]
SHORT: Curve = (0.03, 0.4, 0.0)  # The naive ramp has it.
CURVE_BATCHES, CURVE_PEAKS = (8, 16, 32), (0.004, 0.008, 0.016)
FINALISTS = 6  # curves that all tuning seeds try; the first seed tries each
BETA2, BETA2S = 0.98, (0.9, 0.95, 0.98, 0.99)
MEASURED, POINTS = 16, 16  # b of the runs that measure B, and at how many points
MOST = 256  # the largest b
FAMILIES: dict[str, Sizes] = {
    "root": {1 / 16: 2, 1 / 4: 4},  # b ∝ √t
    "early": {1 / 16: 2, 1 / 8: 4, 1 / 4: 8, 1 / 2: 16},  # b ∝ t
    "late": {0.6: 2, 0.8: 4, 0.9: 8},  # while η falls
    "even": {1 / 4: 2, 1 / 2: 4, 3 / 4: 8},
}
MEASURED_ROOT = "√B"  # one more family: b ∝ the root of the measured noise scale
FRONTIER = (8, 12, 16, 24, 32, 48, 64)  # b of the constants
LIKE = (11, 22, 44)  # a ramp has as many updates as a constant of this b
MIDDLE = 22  # Every family has a ramp of this LIKE.
JUDGED = ("root", MEASURED_ROOT, "late", "early")  # at MIDDLE
Arm = tuple[str, int]  # a family, and b_1 or, of a ramp, one of LIKE


def level(curve: Curve, share: float) -> float:
    """η over its peak, at a share of the samples: a rise to 1, and a fall to 0."""
    rise, fall, start = curve
    return min(1.0, start + (1 - start) * share / rise, (1 - share) / fall)


def plan_of(curve: Curve, b: int, sizes: Sizes, naive: bool = False) -> igo.Plan:
    """The plan of an arm, with η in 64 equal stages, each at the middle of its curve.

    A naive ramp has the curve for η/√b: η rises with √b.
    """
    first = level(curve, 0.5 / STAGES)

    def size_at(share: float) -> float:
        grown = max((size for start, size in sizes.items() if start <= share), default=1.0)
        return min(b * grown, MOST)

    def relative(share: float) -> float:
        rise = math.sqrt(size_at(share) / b) if naive else 1.0
        return rise * level(curve, share + 0.5 / STAGES) / first

    # A table begins a stage where b changes, but its sizes are whole numbers.
    table = {0.0: b} | {start: round(size_at(start)) for start in sizes}
    whole = all(math.isclose(size_at(start), size) for start, size in table.items())
    return streamed(relative, table if whole else size_at)


def streamed(rate: Callable[[float], float], batch_size: Any) -> igo.Plan:
    """The plan of a single pass."""
    with warnings.catch_warnings():
        # It warns that b may be constant, and where batches are few.
        warnings.simplefilter("ignore", igo.PlanWarning)
        return igo.plan(
            rate=rate, batch_size=batch_size, samples=SAMPLES, max_batch_size=MOST, stages=STAGES
        )


def almost_constant(updates: int) -> tuple[int, Sizes]:
    """b, and from a share of the samples on b + 1, so that there are so many updates."""
    b = SAMPLES // updates
    share = (updates / SAMPLES - 1 / (b + 1)) * b * (b + 1)
    return b, {share: (b + 1) / b}


def measured_root(runs: Runs) -> Sizes | None:
    """√(B/B_0) of the chosen curve; None until it is measured."""
    return root_of(_measuring(runs), runs)


def root_of(jobs: Sequence[Job], runs: Runs) -> Sizes | None:
    """√(B/B_0), which never falls, at each stage; None until these jobs, if any, measured B."""
    records = [runs[name] for job in jobs if (name := key(job)) in runs]
    if len(records) < len(TUNED):
        return None
    logs: dict[float, list[float]] = {}
    for record in records:
        for share, scale in record["noise_scales"]:
            if scale:
                logs.setdefault(round(share, 2), []).append(math.log(scale))
    shares = sorted(logs)
    means = np.maximum.accumulate([np.mean(logs[share]) for share in shares])
    stages = np.arange(1, STAGES) / STAGES
    grown = np.exp((np.interp(stages, shares, means) - means[0]) / 2)
    return dict(zip(stages.tolist(), grown.tolist(), strict=True))


def sizes_of(arm: Arm, runs: Runs) -> tuple[int, Sizes]:
    """b_1 and the sizes of an arm; b_1 of a ramp is the whole number that is nearest to LIKE."""
    family, b = arm
    if family == "constant":
        return b, {}
    # The curve of η does not matter to the number of updates.
    if family.startswith("beside "):  # a constant with the updates of a ramp
        of_ramp = sizes_of((family.removeprefix("beside "), b), runs)
        return almost_constant(plan_of(SHORT, *of_ramp).updates)
    sizes = FAMILIES["root"] if family == "naive" else FAMILIES.get(family) or measured_root(runs)
    assert sizes  # B is measured before an arm that needs it is named
    updates = {size: plan_of(SHORT, size, sizes).updates for size in range(1, b + 1)}
    return min(updates, key=lambda size: abs(updates[size] - SAMPLES / b)), sizes


def arms() -> list[Arm]:
    """The frontier, the ramps, beside each middle one a constant, and the naive pair."""
    ramps = [(family, MIDDLE) for family in [*FAMILIES, MEASURED_ROOT, "naive"]]
    others = itertools.product(("root", MEASURED_ROOT), (LIKE[0], LIKE[-1]))
    pairs = [(f"beside {family}", b) for family, b in ramps]
    return [*(("constant", b) for b in FRONTIER), *ramps, *others, *pairs]


def job_of(arm: Arm, curve: Curve, peak: float, beta2: float, seed: int) -> Job:
    """The settings of a run, plain."""
    rise, fall, start = curve
    return {
        "arm": arm[0],
        "b": arm[1],
        "rise": rise,
        "fall": fall,
        "start": start,
        "peak": float(f"{peak:.4g}"),
        "beta2": beta2,
        "seed": seed,
    }


def score(
    arm: Arm, curve: Curve, beta2: float, runs: Runs, seeds: Sequence[int] = TUNED
) -> Callable[[float], float | None]:
    """The negative test loss of tuning seeds, by the peak of η."""

    def of_peak(peak: float) -> float | None:
        jobs_of_peak = (job_of(arm, curve, peak, beta2, seed) for seed in seeds)
        loss = STUDY.mean(jobs_of_peak, runs, "test")
        return loss and -loss

    return of_peak


def curve_peaks(curve: Curve, b: int, runs: Runs, seeds: Sequence[int] = TUNED) -> Scores:
    """The tuning of η's peak for a curve, on a constant b."""
    return search(CURVE_PEAKS, 2, score(("constant", b), curve, BETA2, runs, seeds))


def curve_score(curve: Curve, runs: Runs, seeds: Sequence[int]) -> float | None:
    """The sum over three constant b of the best score; None while runs are missing."""
    total = 0.0
    for b in CURVE_BATCHES:
        by_peak = curve_peaks(curve, b, runs, seeds)
        if None in by_peak.values():
            return None
        total += max(filter(None, by_peak.values()))
    return total


def finalists(runs: Runs) -> dict[Curve, float | None]:
    """The curves that the first seed finds best, with their scores by all; empty before that."""
    first = {curve: curve_score(curve, runs, TUNED[:1]) for curve in CURVES}
    if None in first.values():
        return {}
    ordered = sorted(CURVES, key=lambda curve: first[curve] or 0, reverse=True)
    return {curve: curve_score(curve, runs, TUNED) for curve in ordered[:FINALISTS]}


def chosen_curve(runs: Runs) -> Curve | None:
    """The curve of all arms; None until its tuning has ended."""
    by_curve = finalists(runs)
    return best(by_curve) if by_curve else None


def tuned(arm: Arm, curve: Curve, first: float, runs: Runs) -> Iterator[tuple[float, Scores]]:
    """The steps of an arm's tuning, as β_2 and scores by the peak of η.

    The peak by √2 at BETA2, then each β_2 at this peak.
    """
    grid = [first / math.sqrt(2), first, first * math.sqrt(2)]
    by_peak = search(grid, math.sqrt(2), score(arm, curve, BETA2, runs))
    yield BETA2, by_peak
    if peak := best(by_peak):
        for beta2 in BETA2S:
            yield beta2, {peak: score(arm, curve, beta2, runs)(peak)}


def chosen(arm: Arm, curve: Curve, first: float, runs: Runs) -> tuple[float, float] | None:
    """The peak and β_2 of an arm; None until its tuning has ended."""
    _, *by_beta2 = tuned(arm, curve, first, runs)
    if not by_beta2:
        return None
    beta2 = best({each: found for each, by_peak in by_beta2 for found in by_peak.values()})
    [peak] = by_beta2[0][1]
    return None if beta2 is None else (peak, beta2)


def curve_of(arm: Arm, curve: Curve) -> Curve:
    """The curve of all arms, but for the naive ramp and the constant beside it."""
    return SHORT if "naive" in arm[0] else curve


def jobs(runs: Runs) -> Iterator[Job]:
    """The tuning of the curve, the measurement of B, the tuning of each arm, the seeds."""
    tried = [(curve, TUNED[:1]) for curve in CURVES] + [(each, TUNED) for each in finalists(runs)]
    for (each, seeds), b in itertools.product(tried, CURVE_BATCHES):
        for peak, seed in itertools.product(curve_peaks(each, b, runs, seeds), seeds):
            yield job_of(("constant", b), each, peak, BETA2, seed)
    yield from _measuring(runs)
    curve = chosen_curve(runs)
    if curve is None or measured_root(runs) is None:
        return
    arm_settings = []
    first = best(curve_peaks(curve, MEASURED, runs)) or 0
    for arm in arms():
        own = curve_of(arm, curve)
        for beta2, by_peak in tuned(arm, own, first, runs):
            for peak, seed in itertools.product(by_peak, TUNED):
                yield job_of(arm, own, peak, beta2, seed)
        arm_settings.append((arm, own, chosen(arm, own, first, runs)))
    if all(found for *_, found in arm_settings):
        for seed, (arm, own, found) in itertools.product(SEEDS, arm_settings):
            if found:
                yield job_of(arm, own, *found, seed)


def _measuring(runs: Runs) -> list[Job]:
    """The runs that measure B, at the chosen curve and its best peak."""
    curve = chosen_curve(runs)
    if curve is None:
        return []
    peak = best(curve_peaks(curve, MEASURED, runs)) or 0
    return [job_of(("measured", MEASURED), curve, peak, BETA2, seed) for seed in TUNED]


def train(job: Job, runs: Runs) -> Record:
    """One run of the language model."""
    curve: Curve = (job["rise"], job["fall"], job["start"])
    measuring = job["arm"] == "measured"
    family = "constant" if measuring else job["arm"]
    b, sizes = sizes_of((family, job["b"]), runs)
    plan = plan_of(curve, b, sizes, naive=family == "naive")
    rate, points = job["peak"] * level(curve, 0.5 / STAGES), POINTS if measuring else 0
    return {"b_1": b, **language.trained(plan, job["seed"], rate, job["beta2"], points)}


STUDY = Study("one_pass", jobs, train, SEEDS, LEAST, itemgetter("arm", "b"))
