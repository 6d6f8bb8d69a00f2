"""Which settings can be compared: those that differ in one thing only; and their labels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from igo.report.names import (
    distinct,
    labels,
    method,
    schedule_name,
    shared,
    telling,
    why_null,
    words,
)
from igo.report.table import SCHEDULE, Row, names_in

# What may differ in a family of constant noise. The stages only decide when C² is measured.
CONSTANT = (*SCHEDULE, "learning_rate", "batch_size", "max_batch_size", "schedule.stages")
# Settings that differ in the data, the model or the length of training are not ranked together.
TASK = ("dataset.", "model.", "epochs", "schedule.final_updates")


@dataclass(frozen=True)
class Family:
    """Settings that can be compared: only their schedule differs, or only their constant η and b.

    Attributes:
        kind: ``methods``, ``schedules``, ``grid`` (p × split), ``constant``, or ``others``:
            settings in none of these, on one data set and model.
        number: 1, 2, … among the families of its kind.
        settings: the numbers of its settings, in the order in which they are shown.
        labels: for each setting, how it differs from the others of the family.
        shared: what the settings have in common, in words; first the data set.
    """

    kind: str
    number: int
    settings: tuple[int, ...]
    labels: dict[int, str]
    shared: list[str]

    @property
    def name(self) -> str:
        """A name for files."""
        return self.kind if self.number == 1 else f"{self.kind}_{self.number}"


def families(settings: pl.DataFrame) -> list[Family]:
    """Every family among the settings that have a finished run."""
    usable = settings.filter(pl.col("n") > 0)
    grids = _of_kind(
        "grid", usable, SCHEDULE,
        lambda row: row["schedule.profile"] in ("graduated", "polynomial"),
        lambda rows: min(len({row[name] for row in rows}) for name in ("p", "split")) > 1,
    )  # fmt: skip

    def two_schedules(rows: list[Row]) -> bool:  # besides the Methods, which have their own family
        in_a_grid = any({row["setting"] for row in rows} <= set(grid.settings) for grid in grids)
        return not in_a_grid and sum(method(row) is None for row in rows) > 1

    def two_levels(rows: list[Row]) -> bool:
        pairs = {(row["learning_rate"], row["batch_size"]) for row in rows}
        return len(pairs) > 2 and len({noise_ratio(row) for row in rows}) > 1

    special = [
        *_of_kind("methods", usable, SCHEDULE, lambda row: method(row) is not None,
                  lambda rows: len({method(row) for row in rows}) > 1),
        *_of_kind("schedules", usable, SCHEDULE, lambda row: row["split"] == 1, two_schedules),
        *grids,
        *_of_kind("constant", usable, CONSTANT,
                  lambda row: row["schedule.profile"] == "constant" and why_null(row) is None,
                  two_levels),
    ]  # fmt: skip
    in_families = {setting for family in special for setting in family.settings}
    rest = usable.filter(~pl.col("setting").is_in(list(in_families)))
    free = [name for name in names_in(rest) if not name.startswith(TASK)]
    return [*special, *_of_kind("others", rest, free, lambda _: True, bool)]


def _of_kind(
    kind: str,
    settings: pl.DataFrame,
    free: Sequence[str],
    belongs: Callable[[Row], bool],
    enough: Callable[[list[Row]], bool],
) -> list[Family]:
    """The families of a kind: settings with ``belongs`` that differ only in ``free``, if enough."""
    alike = [name for name in names_in(settings) if name not in free]
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in settings.iter_rows(named=True):
        if belongs(row):
            groups[tuple(row[name] for name in alike)].append(row)
    found = []
    for number, rows in enumerate(filter(enough, groups.values()), 1):
        rows.sort(key=_order)
        numbers = tuple(row["setting"] for row in rows)
        named = _labels(kind, settings.filter(pl.col("setting").is_in(numbers)))
        in_order = {setting: named[setting] for setting in numbers}
        found.append(Family(kind, number, numbers, in_order, shared(rows[0], alike)))
    return found


def _order(row: Row) -> tuple[object, ...]:
    """Constant noise first, then by p, profile, method, split, η, b and number."""
    p = math.inf if row["p"] is None else row["p"]
    profile = str(row["schedule.profile"])
    return (
        profile != "constant", p, profile, method(row) or "", row["split"],
        row["learning_rate"], row["batch_size"], row["setting"],
    )  # fmt: skip


def noise_ratio(row: Row) -> float:
    """η/√b of constant noise, to nine digits. For any C², equal η/√b means equal δ."""
    return float(f"{row['learning_rate'] / math.sqrt(row['batch_size']):.9g}")


def _labels(kind: str, settings: pl.DataFrame) -> dict[int, str]:
    """How each setting differs from the others of its family."""
    rows = {row["setting"]: row for row in settings.iter_rows(named=True)}
    if kind in ("methods", "schedules"):
        return distinct({setting: schedule_name(row) for setting, row in rows.items()})
    if kind != "constant":
        return labels(settings)
    others = [name for name in telling(settings) if name not in CONSTANT]
    return distinct({
        setting: ", ".join(
            [f"η = {row['learning_rate']:g}, b = {row['batch_size']}", *words(row, others)]
        )
        for setting, row in rows.items()
    })  # fmt: skip
