"""The report as one HTML page, with its styles, script and data inside."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from igo.report import facts, families
from igo.report.chart import Figure, Map, Numbers, Panel, Series
from igo.report.content import Report
from igo.report.draw import cell_colours, colour_at, ink_on
from igo.report.phrases import p_value, signed
from igo.report.results import Results, Row

HERE = Path(__file__).parent
MARK = "igo report"
MOST_RUNS, MOST_SETTINGS, MOST_UNCOUNTED, MOST_COMMANDS = 500, 200, 30, 60
DIGITS = 5  # significant digits of the numbers that are drawn


def render(report: Report, results: Results, command: str, folder: Path | None = None) -> str:
    """The page of a report.

    Args:
        report: its sections.
        results: the runs that it was made of.
        command: the command that makes the page again.
        folder: the page's folder, for links to the run folders; None for no links.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    environment.filters |= {
        "plain": lambda value: "" if value is None else f"{value:.6g}",
        "number": _number,
        "p_value": p_value,
        "tied": _tied,
        "place": _place,
        "folder_name": _folder_name,
        "frame": _frame,
        "data": _data,
        "key": _key,
        "cells": _cells,
    }
    labels = _labels(results)
    ordered = results.runs.sort("setting", "seed", "run", nulls_last=True).head(MOST_RUNS)
    return environment.get_template("page.html").render(
        mark=MARK,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        js=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        command=command,
        sections=report.sections,
        most_commands=MOST_COMMANDS,
        left_out=report.left_out,
        all_settings=[
            (label, results.row(setting)) for setting, label in [*labels.items()][:MOST_SETTINGS]
        ],
        runs=[
            {**row, "label": labels.get(row["setting"], "–"), "link": _link(row["folder"], folder)}
            for row in ordered.iter_rows(named=True)
        ],
        linked=set(ordered["setting"].drop_nulls()),
        uncounted=_uncounted(results),
        facts=facts.facts(results),
        how=facts.how(results, command),
    )


def _tied(text: str) -> str:
    """Keep ``p = 0.5``, ``η₁ 0.1`` and ``91 %`` on one line."""
    text = re.sub(r"([₁βM]) (\d)", "\\1\u00a0\\2", text)
    for breakable in (" = ", " %", " ≤ ", " > ", " × "):
        text = text.replace(breakable, breakable.replace(" ", "\u00a0"))
    return text


def _folder_name(name: str) -> Markup:
    """A run's name, which may break only before its ten digits."""
    head, dash, digits = name.rpartition("-")
    return Markup("<span>{}</span><wbr><span>{}</span>").format(head + dash, digits)


def _number(value: float | None, form: str, factor: float = 1) -> str:
    if value is None:
        return "–"
    return signed(value * factor, form[1:]) if form[0] == "+" else f"{value * factor:{form}}"


def _frame(rows: Iterable[tuple[str, Row]]) -> tuple[float, float]:
    """The smallest and the largest accuracy in a table, intervals included."""
    names = [f"test/accuracy_{statistic}" for statistic in ("low", "mean", "high")]
    values = [row[name] for _, row in rows for name in names if row[name] is not None]
    return (min(values), max(values)) if values else (0.0, 1.0)


def _place(value: float, frame: tuple[float, float]) -> float:
    """A value's place in the frame, in per cent."""
    low, high = frame
    return round(100 * (value - low) / (high - low), 2) if high > low else 50.0


def _labels(results: Results) -> dict[int, str]:
    """A label for each setting that no other setting has."""
    names = families.names_in(results.settings)
    families_of_all = families.of_kind("all", results.settings, names, lambda _: True, bool)
    return families_of_all[0].labels if families_of_all else {}


def _cells(cells: Map) -> list[list[tuple[str, str, str]]]:
    """For each cell its text, its background and the colour of its text."""
    return [
        [(text, colour, ink_on(colour)) for text, colour in zip(texts, row, strict=True)]
        for texts, row in zip(cells.texts, cell_colours(cells), strict=True)
    ]


def _key(cells: Map) -> dict[str, Any]:
    """The colour bar, from the smallest to the largest value."""
    low, high = cells.range
    steps = [low + i / 8 * (high - low) for i in range(9)]
    return {
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "colours": [colour_at(cells.share(value)) for value in steps],
    }


def _data(figure: Figure) -> dict[str, Any]:
    """The figure's data for page.js."""
    panels = [_panel(panel) for panel in figure.panels if panel.series]
    return {"views": list(figure.views), "panels": panels}


def _panel(panel: Panel) -> dict[str, Any]:
    factor = 100 if panel.y.percent else 1
    return {
        "x": {view: asdict(axis) for view, axis in panel.x.items()},
        "y": asdict(panel.y),
        "strips": [asdict(strip) for strip in panel.strips],
        "bands": panel.banded,
        "series": [_series(series, factor, panel) for series in panel.series],
    }


def _series(series: Series, factor: float, panel: Panel) -> dict[str, Any]:
    plain = {name: getattr(series, name) for name in ("label", "line", "steps", "markers", "notes")}
    x = {
        view: _rounded(values, 100 if panel.x[view].percent else 1)
        for view, values in series.x.items()
    }
    numbers = {name: _rounded(getattr(series, name), factor) for name in ("y", "low", "high")}
    look = {"colour": list(series.style.colour), "dash": series.style.dash}
    return {**plain, **look, "x": x, **numbers}


def _rounded(values: Numbers, factor: float) -> list[float | int | None]:
    return [None if value is None else _short(value * factor) for value in values]


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _link(run: str, folder: Path | None) -> str:
    """The address of a run's folder, relative to the page's folder."""
    if folder is None:
        return ""
    return quote(f"{os.path.relpath(Path(run).resolve(), folder.resolve())}/")


def _uncounted(results: Results) -> Sequence[str]:
    """A line for each run that is in no mean, with the reason."""
    rows = results.runs.filter(~pl.col("counted")).sort("run").to_dicts()
    lines = [
        f"{row['run']}: "
        + ("the same plan, settings and seed as another run" if row["state"] == "finished"
           else row["state"])
        + (f" ({row['error']})" if row["error"] else "")
        for row in rows[:MOST_UNCOUNTED]
    ]  # fmt: skip
    more = len(rows) - MOST_UNCOUNTED
    return [*lines, f"{more:,} more in runs.csv"] if more > 0 else lines
