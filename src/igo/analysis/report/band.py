"""Decay rates γ_m of every schedule among the runs, against the band of Proposition 3.3."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from igo.analysis.report.chart import Axis, Figure, Panel, Series, Strip, look
from igo.analysis.report.results import Results
from igo.analysis.table.names import schedule_name

MOST = 14  # schedules drawn
WIDTHS = (1.5, 2.0, 4.0)  # a_m for which the band is shaded


@dataclass(frozen=True)
class Rates:
    """γ_m for m = 1, …, of one schedule with M stages, and the settings that have it."""

    label: str
    stages: int
    gamma: tuple[float, ...]
    settings: tuple[int, ...]

    @property
    def smallest(self) -> tuple[float, int]:
        """The smallest γ_m and its m."""
        least = min(self.gamma)
        return least, self.gamma.index(least) + 1


def floor(a: float) -> float:
    """The lowest 1/d_m for a given a_m, (√(a² - 1) - 1)/a (slides, Prop. 3.1)."""
    return (math.sqrt(a**2 - 1) - 1) / a


def largest_a(rate: float) -> float:
    """The largest a_m for which the lowest 1/d_m is below the decay rate; ∞ if it is for all."""
    if rate >= 1:
        return math.inf
    # (√(a² − 1) − 1)/a = γ  ⇔  (1 − γ²) a² − 2γ a − 2 = 0
    return (rate + math.sqrt(rate**2 + 2 * (1 - rate**2))) / (1 - rate**2)


def rates(results: Results) -> list[Rates]:
    """Every schedule once, whatever its split, data set or seed; constant noise has no decay."""
    found: dict[tuple[float, ...], list[int]] = {}
    rows = {}
    for row in results.settings.filter(pl.col("n") > 0).iter_rows(named=True):
        gamma = _recorded(results, row["setting"])
        if gamma and row["schedule.profile"] != "constant":
            found.setdefault(gamma, []).append(row["setting"])
            rows[row["setting"]] = row
    names = [
        " / ".join(sorted({schedule_name(rows[one]) for one in settings}))
        for settings in found.values()
    ]
    stages = [rows[settings[0]]["schedule.stages"] for settings in found.values()]
    return [
        Rates(f"{name} (M = {m})" if names.count(name) > 1 else name, m, gamma, tuple(settings))
        for name, m, (gamma, settings) in zip(names, stages, found.items(), strict=True)
    ]


def _recorded(results: Results, setting: int) -> tuple[float, ...]:
    """γ_m of the stages as recorded, to nine digits; none into a stage at δ = 0."""
    own = results.epochs.filter(pl.col("gamma_m") > 0, setting=setting)
    stages = own.group_by("stage").agg(pl.col("gamma_m").first()).sort("stage")
    return tuple(float(f"{gamma:.9g}") for gamma in stages["gamma_m"])


def decay_rates(found: list[Rates]) -> Figure:
    """γ_m over the course of each schedule, with the band shaded for some a_m."""
    series = [
        Series(
            one.label,
            look(i),
            {"": [(m + 1) / one.stages for m in range(len(one.gamma))]},
            one.gamma,
            markers=one.stages <= 12,
            notes=[f"{one.label}, m = {m + 1}" for m in range(len(one.gamma))],
        )
        for i, one in enumerate(found[:MOST])
    ]
    cut = f" {MOST} of {len(found)} schedules are drawn; the CSV has all." * (len(found) > MOST)
    rows = [
        {"label": one.label, "M": one.stages, "m": m, "gamma_m": gamma,
         "largest_a": largest_a(gamma)}
        for one in found
        for m, gamma in enumerate(one.gamma, 1)
    ]  # fmt: skip
    return Figure(
        "decay_rates",
        "Decay rates γₘ and the band of Proposition 3.3",
        "γₘ = δₘ₊₁/δₘ. The proposition needs γₘ in (1/dₘ₊₁, 1), and 1/d may be as low as"
        " (√(a² − 1) − 1)/a, a > √2. Shaded: from there to 1. The larger a, the wider the strongly"
        " convex region and the narrower the band." + cut,
        pl.DataFrame(rows),
        [setting for one in found[:MOST] for setting in one.settings],
        [
            Panel(
                {"": Axis("m/M")},
                Axis("γₘ"),
                series,
                [Strip(f"a = {a:g}", floor(a), 1.0) for a in WIDTHS],
            )
        ],
    )
