"""Study: which functions are σ-nice or new σ-nice, and in which band of δ are they not?

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
import polars as pl

from lab.theory.functions import Dented, Ripple, rastrigin
from lab.theory.nice import Level, bands, check_new_sigma_nice, check_sigma_nice
from lab.theory.propositions import optimal_levels
from lab.theory.row import Check, Frames, Seen, Study, Tables, no_lines
from lab.theory.smoothing import BALL, GAUSSIAN

STUDY = Study("nonconvex_bands", "nice_stages")
SIGMA = 0.1
DENTED_SIGMA = 0.7  # σ of the nonconvex function that is σ-nice
# Every octave, and more levels where N(0; 3δ) begins to reach a dent.
DENTED_LEVELS = [
    *2.0 ** np.arange(8, -2, -1),
    *np.linspace(0.32, 0.2, 25),
    *2.0 ** np.arange(-3, -9, -1),
]
ROUNDS = (10, 15, 20, 50, 200)
LARGE, SMALL = np.linspace(2.0, 0.6, 8), np.linspace(0.2, 0.02, 8)
CASES = tuple(product((1, 2), (BALL, GAUSSIAN)))


def measure(_seed: int) -> Tables:
    """Find where f̂_δ is not convex at the minimiser, and run both checkers on every function."""
    nonconvex = [
        {"function": "rastrigin", "kernel": kernel.name, "d": d, "from": low, "to": high}
        for d, kernel in CASES
        for low, high in bands(rastrigin(kernel, d), np.linspace(0.01, 2.5, 250))
    ]
    nonconvex += [
        {"function": "rastrigin on N(0; 3δ)", "kernel": "gaussian", "d": 1, "from": a, "to": b}
        for a, b in bands(rastrigin(GAUSSIAN, 1), np.linspace(0.01, 2, 400), radius_factor=3.0)
    ]
    stages = [{"check": name} | level._asdict() for name, report in _reports() for level in report]
    return nonconvex, stages


def _reports() -> Iterator[tuple[str, list[Level]]]:
    """By the names of functions and sequences what a checker says of each noise level."""
    halving, optimal = [2.0 / 2**m for m in range(7)], optimal_levels(2.0, 10, 0.5)
    problem, gaussian, ball = Ripple(), rastrigin(GAUSSIAN, 1), rastrigin(BALL, 1)
    yield "rastrigin, ball", check_new_sigma_nice(ball, optimal, SIGMA)
    for rounds in ROUNDS:
        levels = optimal_levels(2.0, rounds, 0.5)
        yield f"rastrigin, M = {rounds}", check_new_sigma_nice(gaussian, levels, SIGMA)
        levels = optimal_levels(0.2, rounds, 0.5)
        for times in (1, 2):
            sigma = times * problem.sigma(0.2)
            yield f"ripple, {times}σ, M = {rounds}", check_new_sigma_nice(problem, levels, sigma)
    yield "σ-nice: dented", check_sigma_nice(Dented(), DENTED_LEVELS, DENTED_SIGMA)
    parabola = Ripple(right=0.0, left=0.0, wave_slope=0.0, bowl=1.0)
    yield "σ-nice: x²/2", check_sigma_nice(parabola, halving, SIGMA)
    yield "in the band", check_sigma_nice(ball, [0.9, 0.75, 0.6], SIGMA)
    yield "out of it", check_sigma_nice(ball, [0.4, 0.2, 0.1], SIGMA)
    for case, sequence in (
        ("δ from 2 to 0.6", LARGE),
        ("δ from 0.2 to 0.02", SMALL),
        ("both, one jump over the band", np.concatenate([LARGE, SMALL])),
        ("through the band", np.linspace(2.0, 0.02, 16)),
    ):
        yield f"sequence: {case}", check_new_sigma_nice(gaussian, sequence, SIGMA)


def _broken(frames: Frames, case: str) -> pl.DataFrame:
    """Return the levels of a check at which a condition fails."""
    return frames["nice_stages"].filter(~(pl.col("i_holds") & pl.col("ii_holds")), check=case)


@STUDY.statement("目的関数の平滑化")
def more_noise_is_smoother(frames: Frames) -> Seen:
    """more noise makes a smoother function"""
    table = frames["nonconvex_bands"]
    low, high = table.select("from", "to").row(0)  # The first band is the ball's, d = 1.
    return Seen(
        f"Rastrigin: bands of δ with f̂_δ''(0) < 0, of the ball from {low:.3g} to {high:.3g}",
        [
            no_lines(
                f"bands, {kernel.name}, d = {d}",
                table.filter(function="rastrigin", kernel=kernel.name, d=d),
            )
            for d, kernel in CASES
        ],
        [
            no_lines(
                "bands, gaussian, d = 1, all of N(0; 3δ)",
                table.filter(function="rastrigin on N(0; 3δ)"),
            )
        ],
    )


@STUDY.statement("動機")
def sigma_nice_is_rare(frames: Frames) -> Seen:
    """it is not known whether (nonconvex) σ-nice functions exist"""
    quantity = f"dented bowl, σ = {DENTED_SIGMA:g}: broken of {len(DENTED_LEVELS)} levels"
    return Seen(
        "so one exists",
        [Check(quantity, len(_broken(frames, "σ-nice: dented")), low=1)],
        [Check("x²/2, convex and σ-nice", len(_broken(frames, "σ-nice: x²/2")), low=1)],
    )


@STUDY.statement("結論")
def cannot_be_defined(frames: Frames) -> Seen:
    """there are cases in which a σ-nice function cannot be defined"""

    def checks(case: str) -> list[Check]:
        found = []
        stages = frames["nice_stages"].filter(check=case)
        for delta, count, x in stages.select("delta", "minimisers", "x_star").iter_rows():
            found.append(Check(f"minimisers of f̂_δ, δ = {delta:g}", count, low=2))
            found.append(Check(f"their distance from x* = 0, δ = {delta:g}", x, low=0.1))
        return found

    return Seen(
        "Rastrigin, ball, in its band (row 7)",
        checks("in the band"),
        checks("out of it"),
    )


@STUDY.statement("New σ-nice 関数")
def new_sigma_nice_exists(frames: Frames) -> Seen:
    """along one sequence δ_m, around x*, nonconvex functions are new σ-nice"""

    def unbroken(name: str) -> list[Check]:
        return [
            no_lines(f"{name}, M = {m}: broken levels", _broken(frames, f"{name}, M = {m}"))
            for m in ROUNDS
        ]

    moves = frames["nice_stages"].filter(check=f"ripple, 1σ, M = {ROUNDS[-1]}")
    speed = (moves["distance"] / moves["allowed"]).to_numpy().max()
    return Seen(
        "the ripple; Rastrigin, Gaussian noise; p = ½",
        [*unbroken("ripple, 1σ"), *unbroken("rastrigin")],
        [
            *unbroken("ripple, 2σ"),
            no_lines("rastrigin, ball", _broken(frames, "rastrigin, ball")),
        ],
        f"The ripple's x*_δ moves up to {speed:.4g} times as far as δ falls",
    )


@STUDY.statement("貢献")
def sequence_can_be_chosen(frames: Frames) -> Seen:
    """the new definition lets more functions in, by choice of the noise sequence"""
    names = ("δ from 2 to 0.6", "δ from 0.2 to 0.02", "both, one jump over the band")
    return Seen(
        "Rastrigin, Gaussian noise, sequences that avoid its band",
        [
            no_lines(f"{name}: broken levels", _broken(frames, f"sequence: {name}"))
            for name in names
        ],
        [no_lines("16 even steps through the band", _broken(frames, "sequence: through the band"))],
    )
