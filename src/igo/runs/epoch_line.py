"""An epoch as a line: numbers with names for a pipe, columns below a heading for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

GAP = "  "


@dataclass(frozen=True)
class Column:
    """A title and its cells. For lack of room the lowest ``leaves`` is hidden first, 0 never."""

    title: str
    width: int
    cell: Callable[[Mapping[str, Any]], str]
    leaves: int = 0


def describe(record: Mapping[str, Any]) -> str:
    """One line about an epoch that needs no heading."""
    parts = [
        f"epoch {record['epoch']}",
        f"stage {record['stage']}",
        f"δ {_level('delta_m', record)}",
        f"measured {_level('delta_measured', record)}",
        f"η {record['eta_m']:.4g}",
        f"b {record['b_m']:.4g}",
    ]
    if record.get("beta_m"):
        parts.append(f"β {record['beta_m']:.3g}")
    for part in ("train", "validation", "test"):
        if record.get(f"{part}/accuracy") is not None:
            parts.append(f"{part} {record[f'{part}/loss']:.4f} {record[f'{part}/accuracy']:.2%}")
    parts.append(f"{record['images_per_second']:,.0f} images/s")
    return GAP.join(parts)


def columns(width: int, *, momentum: bool = False, validation: bool = False) -> list[Column]:
    """The most important columns that fit into ``width`` characters."""
    shown = [
        Column("epoch", 5, lambda r: str(r["epoch"])),
        Column("stage", 5, lambda r: str(r["stage"]), leaves=3),
        Column("δ_m", 9, partial(_level, "delta_m")),
        Column("measured", 9, partial(_level, "delta_measured")),
        Column("95 % interval", 19, _interval, leaves=2),
        Column("η_m", 9, lambda r: f"{r['eta_m']:.4g}"),
        Column("b_m", 8, lambda r: f"{r['b_m']:,.1f}"),
        Column("train loss", 10, lambda r: f"{r['train/loss']:.4f}", leaves=6),
        Column("train", 7, lambda r: f"{r['train/accuracy']:.2%}", leaves=5),
        Column("test loss", 9, partial(_optional, "test/loss", ".4f"), leaves=4),
        Column("test", 7, partial(_optional, "test/accuracy", ".2%")),
        Column("images/s", 9, lambda r: f"{r['images_per_second']:,.0f}", leaves=1),
    ]
    if momentum:
        shown.insert(7, Column("β_m", 6, lambda r: f"{r['beta_m']:.3g}"))
    if validation:
        shown.insert(-2, Column("validation", 10, partial(_optional, "validation/accuracy", ".2%")))
    for step in range(1, 7):
        if len(heading(shown)) <= width:
            break
        shown = [column for column in shown if column.leaves != step]
    return shown


def heading(columns: Sequence[Column]) -> str:
    """The line of the titles."""
    return GAP.join(column.title.rjust(column.width) for column in columns)


def line(columns: Sequence[Column], record: Mapping[str, Any]) -> str:
    """The line of an epoch below the heading."""
    cells = (column.cell(record).rjust(column.width) for column in columns)
    return GAP.join(cells)


def _optional(name: str, form: str, record: Mapping[str, Any]) -> str:
    value = record[name]  # None in an epoch without evaluation
    return "–" if value is None else format(value, form)


def _level(name: str, record: Mapping[str, Any]) -> str:
    level = record.get(name)
    return "–" if level is None else f"{level:.4g}"


def _interval(record: Mapping[str, Any]) -> str:
    low, high = record.get("delta_measured_low"), record.get("delta_measured_high")
    return "–" if low is None or high is None else f"{low:.4g}-{high:.4g}"
