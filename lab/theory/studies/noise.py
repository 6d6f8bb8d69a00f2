"""Study: the size of SGD's noise; falling learning rates and growing batches of equal δ."""

from itertools import combinations, product

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lab.theory.functions import RASTRIGIN, Array
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, rate_gap, statement
from lab.theory.studies import style

CHAINS, STEPS, NOISE = 2000, 2000, 400.0  # SGD chains, steps, and C of the controlled gradient
ETA, SAMPLES = 0.002, 7
PICTURE = "noise_and_batch.png"
STAGE = np.repeat(np.arange(5), STEPS // 5)
ONES = np.ones(STEPS)
METHODS = {  # learning rates over η_1 and batch sizes over b_1, one of each for each step
    "1 constant": (ONES, ONES),
    "2 decaying learning rate": (0.5 ** (STAGE / 2), ONES),
    "3 increasing batch": (ONES, 2.0**STAGE),
    "4 hybrid": ((np.sqrt(3) / 2) ** STAGE, 1.5**STAGE),
    "polynomial p = 1/2": ((1 - STAGE / 5) ** 0.5, ONES),
    "growing noise": ((2.0 ** ((STAGE - 4) / 2)), ONES),
}
RAN = f"{CHAINS:,} SGD chains of {STEPS} steps on Rastrigin, d = 1, noise (C/√b)·u"


def minibatch_variances(gradients: Array, batch: int) -> tuple[float, float]:
    """Return E‖∇f_S − ∇f‖² with and without replacement, every mini-batch enumerated.

    `gradients` (n, d) of the n samples; n^batch must be small.
    """
    centred = gradients - gradients.mean(0)
    index = range(len(gradients))
    drawn = np.array([centred[list(s)].mean(0) for s in product(index, repeat=batch)])
    subsets = np.array([centred[list(s)].mean(0) for s in combinations(index, batch)])
    return float((drawn**2).sum(1).mean()), float((subsets**2).sum(1).mean())


def controlled_sgd(start: Array, rates: Array, batches: Array, seed: int) -> Array:
    """Run SGD on one-dimensional Rastrigin with noise (C/√b)·uniform[−1, 1].

    `rates` and `batches` have one entry for each step. Returns the last points.
    """
    rng = np.random.default_rng(seed)
    x = start.copy()
    for step, b in zip(rates, batches, strict=True):
        slope = 2 * x + 20 * np.pi * np.sin(2 * np.pi * x)
        x = x - step * (slope + NOISE / np.sqrt(b) * rng.uniform(-1, 1, x.shape))
    return x


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Enumerate Lemma 2.1's mini-batches; run SGD of different batch sizes and schedules."""
    gradients = np.random.default_rng(settings.seed).exponential(size=(SAMPLES, 3))
    c2 = float(((gradients - gradients.mean(0)) ** 2).sum(1).mean())
    names = ("with_replacement", "without_replacement")
    lemma = [
        {"b": b, "C2/b": c2 / b} | dict(zip(names, minibatch_variances(gradients, b), strict=True))
        for b in range(1, SAMPLES)
    ]
    start = np.random.default_rng(settings.seed).uniform(-5.12, 5.12, CHAINS)
    again = np.random.default_rng(settings.seed + 1).uniform(-5.12, 5.12, CHAINS)
    runs = {f"constant, b = {b}": (ONES, b * ONES) for b in 2 ** np.arange(15)} | METHODS
    value, records = RASTRIGIN.value, []
    for name, (step, b) in runs.items():
        x = controlled_sgd(start, ETA * np.asarray(step), np.asarray(b), settings.seed)
        other = controlled_sgd(again, ETA * np.asarray(step), np.asarray(b), settings.seed + 1)
        records.append(
            {
                "schedule": name,
                "delta_1": ETA * float(step[0]) * NOISE / np.sqrt(b[0]),
                "in_global_basin": int((np.abs(x) < 0.5).sum()),
                "in_global_basin_again": int((np.abs(other) < 0.5).sum()),
                "median_f": float(np.median(value(x[:, None]))),
            }
        )
    return {"lemma_2_1": frame(lemma), "noise_and_batch": frame(records)}


def draw(frames: Frames) -> Figure:
    """Draw success against δ, and the schedules' results."""
    table = frames["noise_and_batch"]
    figure, (left, right) = style.panels(2, width=4.8)
    constant = table.filter(pl.col("schedule").str.starts_with("constant, b"))
    left.semilogx(constant["delta_1"], constant["in_global_basin"] / CHAINS, "o-", color=style.BLUE)
    labels = {"xlabel": "δ = ηC/√b", "ylabel": "share in the global basin", "ylim": (0, 0.3)}
    left.set(title="SGD on Rastrigin, constant η and b", **labels)
    schedules = table.filter(pl.col("schedule").is_in(list(METHODS)))
    right.barh(schedules["schedule"], schedules["median_f"], color=style.COLOURS[: len(METHODS)])
    right.invert_yaxis()
    right.set(xlabel="median f at the end", title=r"Schedules; 2–4 have the same $\delta_m$")
    return figure


@statement("補題 2.1", "E‖∇f_S − ∇f‖² ≤ C²/b")
def lemma_2_1(frames: Frames) -> Seen:
    """Compare every enumerated mini-batch variance with C²/b."""
    table, n = frames["lemma_2_1"], SAMPLES
    bound = table["C2/b"]
    over = float((table["with_replacement"] / bound).max())  # type: ignore[arg-type]
    finite = bound * (n - table["b"]) / (n - 1)
    without = float((table["without_replacement"] / finite - 1).abs().max())  # type: ignore[arg-type]
    below = float((bound / 2 / table["with_replacement"]).min())  # type: ignore[arg-type]
    return Seen(
        f"every mini-batch of {n} samples enumerated, b = 1…{n - 1}, with and without replacement",
        [
            Check("largest variance over C²/b, with replacement", over, high=1 + 1e-5),
            Check("difference from (C²/b)(n − b)/(n − 1), without", without, high=1e-5),
        ],
        [Check("C²/(2b) over the variance: would half the bound hold?", below, low=1)],
        note="With replacement the variance equals C²/b. Without, the bound is loose near b = n, "
        "where δ = η√(C²/b) overstates the noise.",
    )


def _wins(frames: Frames, schedule: str) -> tuple[int, int]:
    row = frames["noise_and_batch"].filter(schedule=schedule)
    return int(row["in_global_basin"][0]), CHAINS


@statement(
    "slide: 背景 (gradient methods cannot climb)",
    "large batches follow the original function and stay in bad local minima",
    PICTURE,
)
def large_batches_stay(frames: Frames) -> Seen:
    """Compare the success of a medium batch with that of the largest and the smallest batch."""
    large = _wins(frames, "constant, b = 16384")
    return Seen(
        f"{RAN}, η = {ETA}, constant b = 1 … 16384, success = the global basin at the end",
        [
            rate_gap(
                "success at b = 4 above b = 16384", _wins(frames, "constant, b = 4"), large, 0.03
            )
        ],
        [rate_gap("b = 4096 above b = 16384", _wins(frames, "constant, b = 4096"), large, 0.03)],
        note="The control has a quarter of the batch, and still too little noise to leave a "
        "minimum. Too much noise (b = 1) is no better than none.",
    )


@statement(
    "slide: SGDの挙動についての理論的洞察",
    "a decaying learning rate or a growing batch is better than constants; both lower δ",
    PICTURE,
)
def falling_noise_is_better(frames: Frames) -> Seen:
    """Compare each schedule's success with that of the best constant, chosen on other chains."""
    names, table = list(METHODS), frames["noise_and_batch"]
    constants = table.filter(pl.col("schedule").str.starts_with("constant, b"))
    best = str(constants.sort("in_global_basin_again", descending=True)["schedule"][0])
    rival = _wins(frames, best)
    spread = [_wins(frames, name)[0] / CHAINS for name in names[1:4]]
    return Seen(
        f"{RAN}; Methods 1–4 in 5 stages from b = 1 with equal δ_m for 2–4; rival: the best "
        "constant of b = 1, 2, 4, …, 16384, chosen by chains of another seed",
        [
            *(
                rate_gap(f"success of {n} above {best}", _wins(frames, n), rival)
                for n in names[1:5]
            ),
            Check(
                "equal δ_m, equal success: largest difference", max(spread) - min(spread), 0, 0.03
            ),
        ],
        [rate_gap("the same with growing noise", _wins(frames, names[5]), rival)],
        note="A schedule above b = 1, from which all start, says nothing of constants in general. "
        "Equal δ_m need not give equal results: a larger η_m also moves farther.",
    )


STUDY = Study(
    measure,
    ("lemma_2_1", "noise_and_batch"),
    {PICTURE: draw},
    (lemma_2_1, large_batches_stay, falling_noise_is_better),
)
