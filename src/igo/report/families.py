"""Which settings can be compared: those that differ in one thing only; and their labels."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from igo.report.names import (
    SCHEDULE,
    delta_is_planned,
    differing,
    method,
    schedule_name,
    shared,
    telling,
)
from igo.report.results import Row

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
        shared: what the settings have in common, in words.
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
        """The data set, which all settings share, with n where n is set."""
        return self.shared.split(", ")[0]

    @property
    def labelled(self) -> pl.DataFrame:
        """The settings in order, each with its label."""
        labels = [self.labels[setting] for setting in self.settings]
        schema = {"setting": pl.Int64, "label": pl.String}
        return pl.DataFrame({"setting": self.settings, "label": labels}, schema=schema)


def families(settings: pl.DataFrame) -> list[Family]:
    """Every family among the settings that have a finished run."""
    usable = settings.filter(pl.col("n") > 0)
    grids = of_kind(
        "grid", usable, SCHEDULE,
        lambda row: row["schedule.profile"] in ("graduated", "polynomial"),
        lambda rows: min(len({row[name] for row in rows}) for name in ("p", "split")) > 1,
    )  # fmt: skip

    def two_schedules(rows: list[Row]) -> bool:  # besides the Methods, which have their own family
        in_a_grid = any({row["setting"] for row in rows} <= set(grid.settings) for grid in grids)
        return not in_a_grid and sum(method(row) is None for row in rows) > 1

    special = [
        *of_kind("methods", usable, SCHEDULE, lambda row: method(row) is not None,
                 lambda rows: len({method(row) for row in rows}) > 1),
        *of_kind("schedules", usable, SCHEDULE,
                 lambda row: row["split"] == 1,
                 two_schedules),
        *grids,
        *of_kind("constant", usable, CONSTANT,
                 lambda row: row["schedule.profile"] == "constant" and delta_is_planned(row),
                 _two_levels),
    ]  # fmt: skip
    in_families = {setting for family in special for setting in family.settings}
    rest = usable.filter(~pl.col("setting").is_in(list(in_families)))
    free = [name for name in names_in(rest) if not name.startswith(TASK)]
    return [*special, *of_kind("others", rest, free, lambda _: True, bool)]


def of_kind(
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
    varied += ["dataset.name"] * (chosen["data"].n_unique() > 1)
    labels = _distinct({row["setting"]: _label(kind, row, varied, chosen) for row in rows})
    return Family(
        kind,
        number,
        tuple(row["setting"] for row in rows),
        labels,
        ", ".join(shared(rows[0], alike)),
    )


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


def _two_levels(rows: list[Row]) -> bool:
    pairs = {(row["learning_rate"], row["batch_size"]) for row in rows}
    return len(pairs) > 2 and len({noise_ratio(row) for row in rows}) > 1


def _label(kind: str, row: Row, varied: Sequence[str], chosen: pl.DataFrame) -> str:
    """How a setting differs from the others of its family."""
    if kind in ("methods", "schedules"):
        return schedule_name(row)
    if kind == "constant":
        others = list(telling(chosen, [name for name in varied if name not in CONSTANT]))
        noise = f"η = {row['learning_rate']:g}, b = {row['batch_size']}"
        return ", ".join([noise, *differing(row, others)])
    names = {*telling(chosen, varied), "schedule.profile", "split"}
    if row["schedule.stages"] == row["epochs"] or row["schedule.profile"] == "constant":
        names.discard("schedule.stages")
    return ", ".join(differing(row, [name for name in row if name in names]))


def _distinct(labels: dict[int, str]) -> dict[int, str]:
    """Add the setting's number to labels that are the same."""
    count = Counter(labels.values())
    return {
        setting: f"{label} (setting {setting})" if count[label] > 1 else label
        for setting, label in labels.items()
    }
