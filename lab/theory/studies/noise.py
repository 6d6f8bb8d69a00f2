"""Study: the size of SGD's noise; large batches; falling learning rates and growing batches.

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

from itertools import combinations, product
from typing import Any

import numpy as np

from lab.theory.row import Check, Frames, Seen, Study, Tables, rate_gap
from lab.theory.smoothing import Array

STUDY = Study("lemma_2_1", "noise_and_batch")
STEPS, NOISE = 2000, 400.0  # SGD steps, and C of the controlled gradient
ETA, SAMPLES = 0.002, 7
TUNING, CHAINS = 4000, 20_000  # chains to tune with, and others to judge with
STAGE = np.repeat(np.arange(5), STEPS // 5)
INCREASING = "3 increasing batch"
SPLITS = {"2 decaying learning rate": 1.0, INCREASING: 0.0, "4 hybrid": 0.41504}
CONSTANT, GROWING = "1 constant", "growing noise"
GAMMAS = (1.0, 0.92, 0.84, 0.5**0.5, 0.5)


def minibatch_variances(gradients: Array, batch: int) -> tuple[float, float]:
    """Return E‖∇f_S − ∇f‖² with and without replacement, every mini-batch enumerated.

    `gradients` (n, d) of the n samples; n^batch must be small.
    """
    centred = gradients - gradients.mean(0)
    index = range(len(gradients))
    means = np.array([centred[list(s)].mean(0) for s in product(index, repeat=batch)])
    subsets = np.array([centred[list(s)].mean(0) for s in combinations(index, batch)])
    return float((means**2).sum(1).mean()), float((subsets**2).sum(1).mean())


def in_global_basin(split: float, batch: float, gamma: float, chains: int, seed: int) -> int:
    """Run SGD on one-dimensional Rastrigin, noise (C/√b)·uniform[−1, 1]; count the successes.

    Five stages from η = 0.002 and b_1 = `batch`; δ falls by `gamma` a stage, η by γ^split. Starts
    are uniform in the domain.
    """
    start, noise = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    x = start.uniform(-5.12, 5.12, chains)
    phi = gamma**STAGE
    for rate, b in zip(ETA * phi**split, batch * phi ** (-2 * (1 - split)), strict=True):
        slope = 2 * x + 20 * np.pi * np.sin(2 * np.pi * x)
        x = x - rate * (slope + NOISE / np.sqrt(b) * noise.uniform(-1, 1, x.shape))
    return int((np.abs(x) < 0.5).sum())


def tuned(split: float, gammas: tuple[float, ...], seed: int) -> tuple[float, float]:
    """Return the best (b_1, γ): of a grid, then of finer points about the grid's best.

    γ is one of `gammas`, or nearly so where there are several.
    """

    def best(cases: list[tuple[float, float]]) -> tuple[float, float]:
        return max(cases, key=lambda case: in_global_basin(split, case[0], case[1], TUNING, seed))

    batch, gamma = best(list(product(2.0 ** np.arange(7), gammas)))
    finer = (0.94, 0.97, 1, 1.03, 1.06) if len(gammas) > 1 else (1,)
    batches = batch * 2.0 ** np.array([-0.5, -0.25, 0, 0.25, 0.5])
    return best([(b, min(gamma * g, 1)) for b, g in product(batches, finer)])


def measure(seed: int) -> Tables:
    """Enumerate Lemma 2.1's mini-batches; run SGD of different batch sizes and schedules."""
    gradients = np.random.default_rng(seed).exponential(size=(SAMPLES, 3))
    c2 = ((gradients - gradients.mean(0)) ** 2).sum(1).mean()
    names = ("with_replacement", "without_replacement")
    lemma = [
        {"b": b, "C2/b": c2 / b} | dict(zip(names, minibatch_variances(gradients, b), strict=True))
        for b in range(1, SAMPLES)
    ]

    def run(name: str, choice: str, split: float, batch: float, gamma: float) -> dict[str, Any]:
        return {
            "schedule": name,
            "chosen": choice,
            "b_1": batch,
            "gamma": gamma,
            "delta_1": ETA * NOISE / batch**0.5,
            "chains": CHAINS,
            "in_global_basin": in_global_basin(split, batch, gamma, CHAINS, seed),
        }

    best = {name: tuned(split, GAMMAS, seed + 1) for name, split in SPLITS.items()}
    records = [run(CONSTANT, "grid", 1.0, 2.0**k, 1.0) for k in range(15)]
    records.append(run(CONSTANT, "tuned", 1.0, *tuned(1.0, (1.0,), seed + 1)))
    records += [run(name, "tuned", SPLITS[name], *best[name]) for name in SPLITS]
    records.append(run(GROWING, "tuned", 0.0, best[INCREASING][0], 1 / 0.5**0.5))
    return lemma, records


@STUDY.statement("補題 2.1")
def lemma_2_1(frames: Frames) -> Seen:
    """E‖∇f_S − ∇f‖² ≤ C²/b"""
    n = SAMPLES  # The table has four columns: b, C²/b, and E‖∇f_S − ∇f‖² of both ways to draw.
    b, bound, with_replacement, without_replacement = frames["lemma_2_1"].to_numpy().T
    finite = bound * (n - b) / (n - 1)
    largest = (with_replacement / bound).max()
    difference = np.abs(without_replacement / finite - 1).max()
    below = (bound / 2 / with_replacement).min()
    return Seen(
        f"every mini-batch of {n} samples",
        [
            Check("largest variance over C²/b, with replacement", largest, high=1 + 1e-5),
            Check("difference from (C²/b)(n − b)/(n − 1), without", difference, high=1e-5),
        ],
        [Check("C²/(2b) over the variance: would half the bound hold?", below, low=1)],
    )


def _wins(frames: Frames, **case: object) -> tuple[int, int]:
    """The chains of a case that ended in the global basin, and all of its chains."""
    row = frames["noise_and_batch"].filter(**case).row(0, named=True)
    return row["in_global_basin"], row["chains"]


RAN = f"{CHAINS:,} chains on Rastrigin"


@STUDY.statement("SGDの挙動についての理論的洞察")
def large_batches_stay(frames: Frames) -> Seen:
    """too large batches follow f and stay in bad local minima"""
    large, medium, next_to_it = (_wins(frames, chosen="grid", b_1=b) for b in (16384, 8, 4096))
    return Seen(
        f"{RAN}, constant η and b",
        [rate_gap("success at b = 8 less b = 16384", medium, large, 0.03)],
        [rate_gap("b = 4096 less b = 16384", next_to_it, large, 0.03)],
    )


@STUDY.statement("SGDの挙動についての理論的洞察")
def falling_noise_is_better(frames: Frames) -> Seen:
    """a decaying learning rate or a growing batch is better than constants"""
    wins = {name: _wins(frames, schedule=name, chosen="tuned") for name in (*SPLITS, GROWING)}
    rival = _wins(frames, schedule=CONSTANT, chosen="tuned")
    return Seen(
        f"{RAN}; b_1 and γ tuned alike on others",
        [rate_gap(f"success, {name} less constant", wins[name], rival) for name in SPLITS],
        [rate_gap("the same with growing noise", wins[GROWING], rival)],
        "On images [it is](../path.md)",
    )
