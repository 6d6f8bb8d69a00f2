"""The report as one HTML page: styles, script and data inside, nothing fetched."""

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

from igo.analysis.report import facts, families
from igo.analysis.report.chart import Figure, Map, Numbers, Panel, Series
from igo.analysis.report.content import Report
from igo.analysis.report.draw import cell_colours, colour_at, ink_on
from igo.analysis.report.phrases import p_value, signed
from igo.analysis.report.results import Results, Row

HERE = Path(__file__).parent
MARK = "igo report"
MOST_RUNS, MOST_SETTINGS, MOST_UNCOUNTED, MOST_COMMANDS = 500, 200, 30, 60
DIGITS = 5  # significant ones, of what is drawn


def render(report: Report, results: Results, command: str, folder: Path | None = None) -> str:
    """The page of a report.

    Args:
        report: what to show.
        results: the runs behind it.
        command: what makes the page again.
        folder: where the page will lie, for links to the run folders; None for none.
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
            (label, results.of(setting)) for setting, label in [*labels.items()][:MOST_SETTINGS]
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
    for loose in (" = ", " %", " ≤ ", " > ", " × "):
        text = text.replace(loose, loose.replace(" ", "\u00a0"))
    return text


def _folder_name(name: str) -> Markup:
    """A run's name, which may be broken before its ten digits and nowhere else."""
    head, dash, digits = name.rpartition("-")
    return Markup("<span>{}</span><wbr><span>{}</span>").format(head + dash, digits)


def _number(value: float | None, form: str, factor: float = 1) -> str:
    if value is None:
        return "–"
    return signed(value * factor, form[1:]) if form[0] == "+" else f"{value * factor:{form}}"


def _frame(rows: Iterable[tuple[str, Row]]) -> tuple[float, float]:
    """From where to where the intervals of a table are drawn."""
    names = [f"test/accuracy_{what}" for what in ("low", "mean", "high")]
    found = [row[name] for _, row in rows for name in names if row[name] is not None]
    return (min(found), max(found)) if found else (0.0, 1.0)


def _place(value: float, frame: tuple[float, float]) -> float:
    """Where in the frame, in per cent."""
    low, high = frame
    return round(100 * (value - low) / (high - low), 2) if high > low else 50.0


def _labels(results: Results) -> dict[int, str]:
    """A name for each setting that tells it from all others here."""
    names = families.names_in(results.settings)
    found = families.of_kind("all", results.settings, names, lambda _: True, bool)
    return found[0].labels if found else {}


def _cells(one: Map) -> list[list[tuple[str, str, str]]]:
    """Of each cell its text, its colour and that of its text."""
    return [
        [(text, colour, ink_on(colour)) for text, colour in zip(texts, row, strict=True)]
        for texts, row in zip(one.texts, cell_colours(one), strict=True)
    ]


def _key(one: Map) -> dict[str, Any]:
    """The colour bar, from the least to the largest value that there is."""
    low, high = one.range
    steps = [low + i / 8 * (high - low) for i in range(9)]
    return {
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "colours": [colour_at(one.share(value)) for value in steps],
        "better": "smaller" if one.small_is_good else "larger",
    }


def _data(figure: Figure) -> dict[str, Any]:
    """What page.js draws."""
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
    flat = {name: getattr(series, name) for name in ("label", "line", "steps", "markers", "notes")}
    x = {
        view: _rounded(values, 100 if panel.x[view].percent else 1)
        for view, values in series.x.items()
    }
    numbers = {name: _rounded(getattr(series, name), factor) for name in ("y", "low", "high")}
    look = {"colour": list(series.style.colour), "dash": series.style.dash}
    return {**flat, **look, "x": x, **numbers}


def _rounded(values: Numbers, factor: float) -> list[float | int | None]:
    return [None if v is None else _short(v * factor) for v in values]


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _link(run: str, folder: Path | None) -> str:
    """The address of a run's folder, seen from the page's."""
    if folder is None:
        return ""
    return quote(f"{os.path.relpath(Path(run).resolve(), folder.resolve())}/")


def _uncounted(results: Results) -> Sequence[str]:
    """A line for each run that is in no mean, and why."""
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
