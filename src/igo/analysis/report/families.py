"""What can be compared with what: settings that differ in one thing only, and their names."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from igo.analysis.report.results import Row
from igo.analysis.table.names import (
    SCHEDULE,
    delta_is_planned,
    differing,
    method,
    schedule_name,
    shared,
    telling,
)

# What makes constant noise; its number of stages changes no training, only where C² is measured.
# (Of other schedules M is a part of what they share.)
CONSTANT = (*SCHEDULE, "learning_rate", "batch_size", "max_batch_size", "schedule.stages")
# What is learned, by what, and for how long: settings that differ in it are not ranked together.
TASK = ("dataset.", "model.", "epochs", "schedule.final_updates")


@dataclass(frozen=True)
class Family:
    """Settings that are comparable: they differ in their schedule, or in constant η and b, alone.

    Attributes:
        kind: ``methods``, ``schedules``, ``grid`` (p × split), ``constant``, or ``others``: what is
            in none of these, on one data set and model.
        number: 1, 2, … among those of its kind.
        settings: the numbers of its settings, in the order to show them in.
        labels: of each setting, what tells it apart in this family.
        shared: what they have in common, in words.
    """

    kind: str
    number: int
    settings: tuple[int, ...]
    labels: dict[int, str]
    shared: str

    @property
    def name(self) -> str:
        """A name for files."""
        return self.kind if self.number == 1 else f"{self.kind}_{self.number}"

    @property
    def data(self) -> str:
        """The data set, which all of its settings have, with n where that is set."""
        return self.shared.split(", ")[0]

    @property
    def labelled(self) -> pl.DataFrame:
        """Its settings in order, each with its label."""
        labels = {"setting": self.settings, "label": [self.labels[one] for one in self.settings]}
        return pl.DataFrame(labels, schema={"setting": pl.Int64, "label": pl.String})


def families(settings: pl.DataFrame) -> list[Family]:
    """Every family among the settings that have a finished run."""
    usable = settings.filter(pl.col("n") > 0)
    grids = of_kind(
        "grid", usable, SCHEDULE,
        lambda row: row["schedule.profile"] in ("graduated", "polynomial"),
        lambda rows: min(len({row[name] for row in rows}) for name in ("p", "split")) > 1,
    )  # fmt: skip

    def only_in_a_grid(rows: list[Row]) -> bool:
        own = {row["setting"] for row in rows}
        return any(own <= set(grid.settings) for grid in grids)

    def two_schedules(rows: list[Row]) -> bool:  # that decay; Method 2 belongs to the methods
        return sum(method(row) is None for row in rows) > 1 and not only_in_a_grid(rows)

    found = [
        *of_kind("methods", usable, SCHEDULE, lambda row: method(row) is not None,
                 lambda rows: len({method(row) for row in rows}) > 1),
        *of_kind("schedules", usable, SCHEDULE,
                 lambda row: row["split"] == 1 and not row["optimizer.decay_momentum"],
                 two_schedules),
        *grids,
        *of_kind("constant", usable, CONSTANT,
                 lambda row: row["schedule.profile"] == "constant" and delta_is_planned(row),
                 _two_levels),
    ]  # fmt: skip
    inside = {setting for family in found for setting in family.settings}
    rest = usable.filter(~pl.col("setting").is_in(list(inside)))
    free = [name for name in names_in(rest) if not name.startswith(TASK)]
    return [*found, *of_kind("others", rest, free, lambda _: True, bool)]


def of_kind(
    kind: str,
    settings: pl.DataFrame,
    free: Sequence[str],
    belongs: Callable[[Row], bool],
    enough: Callable[[list[Row]], bool],
) -> list[Family]:
    """The families of a kind: settings that belong, alike in all but ``free``, and enough."""
    alike = [name for name in names_in(settings) if name not in free]
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in settings.iter_rows(named=True):
        if belongs(row):
            groups[tuple(row[name] for name in alike)].append(row)
    kept = [rows for rows in groups.values() if enough(rows)]
    return [_family(kind, number, rows, settings, alike) for number, rows in enumerate(kept, 1)]


def names_in(settings: pl.DataFrame) -> list[str]:
    """The columns that are settings."""
    return settings.columns[1 : settings.columns.index("n")]


def _family(
    kind: str, number: int, rows: list[Row], settings: pl.DataFrame, alike: Sequence[str]
) -> Family:
    rows = sorted(rows, key=_order)
    chosen = settings.filter(pl.col("setting").is_in([row["setting"] for row in rows]))
    varied = [name for name in names_in(settings) if chosen[name].n_unique() > 1]
    labels = _distinct({row["setting"]: _label(kind, row, varied, chosen) for row in rows})
    return Family(
        kind,
        number,
        tuple(row["setting"] for row in rows),
        labels,
        ", ".join(shared(rows[0], alike)),
    )


def _order(row: Row) -> tuple[object, ...]:
    """Constant first, then by p, profile, split, and what else there is."""
    p = math.inf if row["p"] is None else row["p"]
    profile = str(row["schedule.profile"])
    return (
        profile != "constant", p, profile, method(row) or "", row["split"],
        row["learning_rate"], row["batch_size"], row["setting"],
    )  # fmt: skip


def noise_ratio(row: Row) -> float:
    """η/√b of constant noise, to nine digits: equal for equal δ, whatever C²."""
    return float(f"{row['learning_rate'] / math.sqrt(row['batch_size']):.9g}")


def _two_levels(rows: list[Row]) -> bool:
    pairs = {(row["learning_rate"], row["batch_size"]) for row in rows}
    return len(pairs) > 2 and len({noise_ratio(row) for row in rows}) > 1


def _label(kind: str, row: Row, varied: Sequence[str], chosen: pl.DataFrame) -> str:
    """What tells a setting from the others of its family."""
    if kind in ("methods", "schedules"):
        return schedule_name(row)
    if kind == "constant":
        others = list(telling(chosen, [name for name in varied if name not in CONSTANT]))
        noise = f"η = {row['learning_rate']:g}, b = {row['batch_size']}"
        return ", ".join([noise, *differing(row, others)])
    names = {*telling(chosen, varied), "schedule.profile", "split"}  # it has a schedule's name
    if row["schedule.stages"] == row["epochs"] or row["schedule.profile"] == "constant":
        names.discard("schedule.stages")
    return ", ".join(differing(row, [name for name in row if name in names]))


def _distinct(labels: dict[int, str]) -> dict[int, str]:
    """Number the settings whose labels are the same, as what differs has no word."""
    count = Counter(labels.values())
    return {
        setting: f"{label} (setting {setting})" if count[label] > 1 else label
        for setting, label in labels.items()
    }
