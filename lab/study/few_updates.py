"""The study of results/few_updates.md: a growing batch beside a constant one, both tuned alike.

The model, its text and the single pass are those of ``lab.study.one_pass``.
"""

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from operator import itemgetter

import numpy as np

import igo
from lab.study import language, one_pass
from lab.study.design import Job, Record, Runs, Study, key
from lab.study.one_pass import FAMILIES, MOST, STAGES, Arm, Sizes

SEEDS, TUNED = range(300, 324), range(900, 903)
CONSTANT, ROOT, LINEAR, MEASURED_ROOT = "constant", "√t", "t", "√B"
OWN, SWAPPED, MEASURED = "own η of ", "√t at the constant's η", "measured"
B, LARGE, SMALL = 44, 88, 32  # A ramp has the updates of B or LARGE.
POINTS = 16  # A run that measures B does so at so many.
RAMPS: list[Arm] = [(ROOT, B), (LINEAR, B), (MEASURED_ROOT, B), (ROOT, LARGE)]
TUNED_ARMS: list[Arm] = [(CONSTANT, B), *RAMPS, (CONSTANT, LARGE), (CONSTANT, SMALL)]
Steps = tuple[int, ...]  # of each of SETTINGS, from its start
SETTINGS = {  # where the search starts, and its factor
    "peak": (0.016, 2**0.5),  # the largest η
    "rise": (1.0, 2.0),  # η ∝ t^rise, t the share of the samples,
    "fall": (0.2, 2.0),  # times a linear fall to 0 over this last share
    "forgetting": (0.04, 2.0),  # 1 − β_2
}
START: Steps = (0,) * len(SETTINGS)


def settings_of(steps: Steps) -> dict[str, float]:
    """The settings of a run, by name, so many steps from where the search starts."""
    return {
        name: float(f"{start * factor**step:.4g}")
        for (name, (start, factor)), step in zip(SETTINGS.items(), steps, strict=True)
    }


def levels(rise: float, fall: float) -> list[float]:
    """η over its largest, at the middle of each of the equal stages."""
    middles = (np.arange(STAGES) + 0.5) / STAGES
    curve = middles**rise * np.minimum(1, (1 - middles) / fall)
    return [float(level) for level in curve / curve.max()]


def plan_of(rise: float, fall: float, sizes: Sizes) -> igo.Plan:
    """The plan of a curve of η, with these sizes by the share at which each begins."""
    by_stage = levels(rise, fall)
    table = {share: round(size) for share, size in sizes.items()}
    return one_pass.streamed(lambda t: by_stage[round(t * STAGES)] / by_stage[0], table)


@cache
def sizes_like(b: int, growth: tuple[tuple[float, float], ...]) -> dict[float, int]:
    """The sizes of a ramp, whole numbers, that make as many updates as a constant b.

    ``growth`` has shares of the samples, each with the size from there on over the first size.
    """

    def sizes(first: float) -> dict[float, int]:
        """The sizes, by the share at which each begins, for a first size before rounding."""
        table = {0.0: 1.0, **dict(growth)}
        return {share: min(MOST, round(first * grown)) for share, grown in table.items()}

    def fewness(table: Sizes) -> int:
        """Minus the updates: ``bisect_left`` needs numbers that rise with the first size."""
        return -plan_of(1, 1, table).updates

    grid = [number / 20 for number in range(20, 20 * b)]  # first sizes from 1 to b
    place = bisect_left(grid, fewness({0.0: b}), key=lambda first: fewness(sizes(first)))
    return sizes(grid[place])


def sizes_of(arm: Arm, runs: Runs) -> dict[float, int]:
    """The batch sizes of an arm by the share of the samples at which they begin.

    A ramp of √B is constant as long as B is not measured.
    """
    family, b = arm
    if family in (CONSTANT, MEASURED):
        return {0.0: b}
    named = {ROOT: "root", SWAPPED: "root", LINEAR: "early"}
    growth = FAMILIES[named[family]] if family in named else measured_root(runs) or {}
    return sizes_like(b, tuple(growth.items()))


def job_of(arm: Arm, steps: Steps, seed: int) -> Job:
    """The run of an arm with these steps of its settings."""
    return {"arm": arm[0], "b": arm[1], **settings_of(steps), "seed": seed}


def walk(start: Steps, loss: Callable[[Steps], float | None]) -> tuple[list[Steps], Steps | None]:
    """Search one setting after another, until each neighbour of the best is worse.

    A setting moves by steps while the loss falls. Returned are the steps that were tried, and the
    best ones: None while a loss is missing, which ends the search.
    """
    tried, best, setting = {start: None}, start, 0  # The keys of ``tried`` are a set in order.
    settings_in_a_row = 0  # whose neighbours are worse than the best
    while settings_in_a_row < len(start):
        before, after = best[:setting], best[setting + 1 :]
        around = [(*before, best[setting] + step, *after) for step in (0, -1, 1)]
        tried |= dict.fromkeys(around)
        losses = [loss(steps) for steps in around]
        if None in losses:
            return [*tried], None
        lowest = around[int(np.argmin(np.array(losses, float)))]
        if lowest != best:
            best, settings_in_a_row = lowest, 0
        else:
            settings_in_a_row += 1
            setting = (setting + 1) % len(start)
    return [*tried], best


def tuning(arm: Arm, runs: Runs) -> tuple[list[Job], Steps | None]:
    """The jobs of an arm's tuning so far, and the steps that it chose; None while it goes on.

    The search is made with the first seed alone, and goes on from there with all three.
    """
    jobs: list[Job] = []
    best: Steps | None = START
    for seeds in (TUNED[:1], TUNED):
        if best is not None:
            tried, best = walk(best, partial(_mean_loss, arm, seeds, runs))
            jobs += [job_of(arm, steps, seed) for steps in tried for seed in seeds]
    return jobs, best


def _mean_loss(arm: Arm, seeds: Sequence[int], runs: Runs, steps: Steps) -> float | None:
    """The mean test loss of these seeds; None while a run is missing."""
    return STUDY.mean((job_of(arm, steps, seed) for seed in seeds), runs, "test")


def measuring(runs: Runs) -> list[Job]:
    """The runs of the tuned constant b that measure B; none before it is tuned."""
    steps = tuning((CONSTANT, B), runs)[1]
    return [] if steps is None else [job_of((MEASURED, B), steps, seed) for seed in TUNED]


def measured_root(runs: Runs) -> Sizes | None:
    """The growth of √B at the tuned constant; None until it is measured."""
    records = [runs[name] for job in measuring(runs) if (name := key(job)) in runs]
    return one_pass.root_of(records) if len(records) == len(TUNED) else None


def arms(chosen: Mapping[Arm, Steps]) -> dict[Arm, Steps]:
    """The steps of all arms: the tuned ones, each ramp's η at a constant b, and √t at that of B."""
    own = {(OWN + family, b): chosen[family, b] for family, b in RAMPS}
    return {**chosen, **own, (SWAPPED, B): chosen[CONSTANT, B]}


def jobs(runs: Runs) -> Iterator[Job]:
    """The tuning of each arm, the measurement of B, and then the seeds."""
    yield from measuring(runs)
    found: dict[Arm, Steps] = {}
    for arm in TUNED_ARMS:
        if arm[0] == MEASURED_ROOT and measured_root(runs) is None:
            continue
        of_arm, steps = tuning(arm, runs)
        yield from of_arm
        if steps is not None:
            found[arm] = steps
    if len(found) == len(TUNED_ARMS):
        for seed, (arm, steps) in itertools.product(SEEDS, arms(found).items()):
            yield job_of(arm, steps, seed)


def train(job: Job, runs: Runs) -> Record:
    """One run of the language model, and numbers of its plan: means over samples, and sums."""
    family = job["arm"].removeprefix(OWN)
    plan = plan_of(job["rise"], job["fall"], sizes_of((family, job["b"]), runs))
    if family != job["arm"]:
        plan = plan.control("rate")  # the ramp's own η, at a constant b
    rate = job["peak"] * levels(job["rise"], job["fall"])[0]  # η_1; plans have η/η_1
    points = POINTS if job["arm"] == MEASURED else 0
    ended = language.trained(plan, job["seed"], rate, 1 - job["forgetting"], points)
    samples, rates, sizes = np.transpose([(row.samples, row.eta_m, row.b_m) for row in plan.rows])
    etas = rate * rates
    return {
        **ended,
        "smallest": round(plan.rows[0].b_m),
        "largest_eta": etas.max(),
        "sum_eta": etas @ (samples / sizes),
        "eta_over_sqrt_b": etas / np.sqrt(sizes) @ samples / samples.sum(),
    }


STUDY = Study("few_updates", jobs, train, SEEDS, len(SEEDS), itemgetter("arm", "b"))
