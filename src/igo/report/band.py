"""The decay rates γ_m of every schedule among the runs, and the band of Proposition 3.3."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from igo.analysis.table.names import schedule_name
from igo.report.chart import Axis, Figure, Panel, Series, Strip, look
from igo.report.results import Results

MOST = 14  # schedules drawn
WIDTHS = (1.5, 2.0, 4.0)  # a_m for which the band is shaded


@dataclass(frozen=True)
class Rates:
    """γ_m for m = 1, … of a schedule with M stages, and the settings that have this schedule."""

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
    """The largest a_m whose lowest 1/d_m is below the decay rate; ∞ if that holds for every a_m."""
    if rate >= 1:
        return math.inf
    # (√(a² − 1) − 1)/a = γ  ⇔  (1 − γ²) a² − 2γ a − 2 = 0
    return (rate + math.sqrt(rate**2 + 2 * (1 - rate**2))) / (1 - rate**2)


def rates(results: Results) -> list[Rates]:
    """Each schedule once, for all splits, data sets and seeds, without constant noise."""
    settings_of: dict[tuple[float, ...], list[int]] = {}
    rows = {}
    for row in results.settings.filter(pl.col("n") > 0).iter_rows(named=True):
        gamma = _recorded(results, row["setting"])
        if gamma and row["schedule.profile"] != "constant":
            settings_of.setdefault(gamma, []).append(row["setting"])
            rows[row["setting"]] = row
    names = [
        " / ".join(sorted({schedule_name(rows[setting]) for setting in settings}))
        for settings in settings_of.values()
    ]
    stages = [rows[settings[0]]["schedule.stages"] for settings in settings_of.values()]
    return [
        Rates(f"{name} (M = {m})" if names.count(name) > 1 else name, m, gamma, tuple(settings))
        for name, m, (gamma, settings) in zip(names, stages, settings_of.items(), strict=True)
    ]


def _recorded(results: Results, setting: int) -> tuple[float, ...]:
    """The recorded γ_m of the stages, to nine digits, without γ_m = 0."""
    epochs = results.epochs.filter(pl.col("gamma_m") > 0, setting=setting)
    stages = epochs.group_by("stage").agg(pl.col("gamma_m").first()).sort("stage")
    return tuple(float(f"{gamma:.9g}") for gamma in stages["gamma_m"])


def decay_rates(schedules: list[Rates]) -> Figure:
    """γ_m over the stages of each schedule, with the band shaded for some a_m."""
    drawn = schedules[:MOST]
    series = [
        Series(
            schedule.label,
            look(i),
            {"": [(m + 1) / schedule.stages for m in range(len(schedule.gamma))]},
            schedule.gamma,
            markers=schedule.stages <= 12,
            notes=[f"{schedule.label}, m = {m + 1}" for m in range(len(schedule.gamma))],
        )
        for i, schedule in enumerate(drawn)
    ]
    limit = f" {MOST} of {len(schedules)} schedules are drawn; the CSV has all."
    rows = [
        {"label": schedule.label, "M": schedule.stages, "m": m, "gamma_m": gamma,
         "largest_a": largest_a(gamma)}
        for schedule in schedules
        for m, gamma in enumerate(schedule.gamma, 1)
    ]  # fmt: skip
    return Figure(
        "decay_rates",
        "Decay rates γₘ and the band of Proposition 3.3",
        "γₘ = δₘ₊₁/δₘ. The proposition needs γₘ in (1/dₘ₊₁, 1), and 1/d may be as low as"
        " (√(a² − 1) − 1)/a, a > √2. Shaded: from there to 1. The larger a, the wider the strongly"
        " convex region and the narrower the band." + limit * (len(schedules) > MOST),
        pl.DataFrame(rows),
        [setting for schedule in drawn for setting in schedule.settings],
        [
            Panel(
                {"": Axis("m/M")},
                Axis("γₘ"),
                series,
                [Strip(f"a = {a:g}", floor(a), 1.0) for a in WIDTHS],
            )
        ],
    )
