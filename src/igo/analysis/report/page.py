"""The report as one HTML page: styles, script and data inside, nothing fetched."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from igo.analysis.report import facts, families
from igo.analysis.report.chart import Axis, Figure, Map, Panel, Series
from igo.analysis.report.comparison import Pair
from igo.analysis.report.content import Report, Section, Tests
from igo.analysis.report.draw import banded, cell_colours, colour_at, ink_on
from igo.analysis.report.phrases import p_value, signed, verdict
from igo.analysis.report.results import Results, Row

HERE = Path(__file__).parent
MARK = "igo report"
MOST_RUNS, MOST_SETTINGS, MOST_UNCOUNTED = 500, 200, 30
LONG = 6  # points of a line, from which its second half can be looked at by itself
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
        "frame": _frame,
    }
    labels = _labels(results)
    return environment.get_template("page.html").render(
        mark=MARK,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        js=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        command=command,
        sections=[_section(one) for one in report.sections],
        left_out=report.left_out,
        all_settings=[
            (labels[row["setting"]], row)
            for row in results.settings.head(MOST_SETTINGS).iter_rows(named=True)
        ],
        runs=_runs(results, labels, folder),
        linked=_linked(results),
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


def _number(value: float | None, form: str, factor: float = 1) -> str:
    if value is None:
        return "–"
    return signed(value * factor, form[1:]) if form[0] == "+" else f"{value * factor:{form}}"


def _frame(rows: Iterable[tuple[str, Row]]) -> tuple[float, float]:
    """From where to where the intervals of a table are drawn."""
    found = [
        row[f"test/accuracy_{what}"]
        for _, row in rows
        for what in ("low", "mean", "high")
        if row[f"test/accuracy_{what}"] is not None
    ]
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


def _section(section: Section) -> dict[str, Any]:
    own = dict(section.__dict__)
    own["figures"] = [_figure(figure) for figure in section.figures]
    own["tests"] = [_tests(test) for test in section.tests]
    return own


def _tests(test: Tests) -> dict[str, Any]:
    points = "accuracy" in test.metric
    pairs = [(*row, _verdict(row[2], test)) for row in test.pairs]
    return {**test.__dict__, "pairs": pairs, "points": points,
            "form": "+.2f" if points else "+.4f", "factor": 100 if points else 1}  # fmt: skip


def _verdict(pair: Pair, test: Tests) -> str:
    """In a table, whose other columns say n and what is detectable."""
    return verdict(pair, test.margin).partition(" with n")[0]


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "data": _data(figure) if figure.panels else None,
        "maps": [_map(one) for one in figure.maps],
    }


def _map(one: Map) -> dict[str, Any]:
    colours = cell_colours(one)
    cells = [
        [(text, colour, ink_on(colour)) for text, colour in zip(texts, row, strict=True)]
        for texts, row in zip(one.texts, colours, strict=True)
    ]
    low, high = one.range
    key = {
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "colours": [colour_at(i / 8) for i in range(9)],
        "better": "smaller" if one.small_is_good else "larger",
    }
    return {**one.__dict__, "cells": cells, "key": key}


def _data(figure: Figure) -> dict[str, Any]:
    """What page.js draws."""
    lines = [s for p in figure.panels for s in p.series if s.line and not s.markers]
    return {
        "views": list(figure.views),
        "long": any(len(series.y) >= LONG for series in lines),
        "panels": [_panel(panel) for panel in figure.panels],
    }


def _panel(panel: Panel) -> dict[str, Any]:
    factor = 100 if panel.y.percent else 1
    return {
        "title": panel.title,
        "x": {view: _axis(axis) for view, axis in panel.x.items()},
        "y": {**_axis(panel.y), "skip": panel.y.percent},
        "strips": [strip.__dict__ for strip in panel.strips],
        "bands": banded(panel),
        "series": [_series(series, panel, factor) for series in panel.series],
    }


def _axis(axis: Axis) -> dict[str, Any]:
    return {"label": axis.label, "log": axis.log}


def _series(series: Series, panel: Panel, factor: float) -> dict[str, Any]:
    return {
        "label": series.label,
        "colour": list(series.style.colour),
        "dash": series.style.dash,
        "line": series.line,
        "steps": series.steps,
        "markers": series.markers,
        "x": {
            view: _rounded(values, 100 if panel.x[view].percent else 1)
            for view, values in series.x.items()
        },
        "y": _rounded(series.y, factor),
        "low": _rounded(series.low, factor),
        "high": _rounded(series.high, factor),
        "notes": list(series.notes),
    }


def _rounded(values: Sequence[float | None], factor: float) -> list[float | None]:
    return [None if v is None else _short(v * factor) for v in values]


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _runs(results: Results, labels: dict[int, str], folder: Path | None) -> list[Row]:
    ordered = results.runs.sort("setting", "seed", "run", nulls_last=True).head(MOST_RUNS)
    return [
        {**row, "label": labels.get(row["setting"], "–"), "link": _link(row["folder"], folder)}
        for row in ordered.iter_rows(named=True)
    ]


def _link(run: str, folder: Path | None) -> str:
    """The address of a run's folder, seen from the page's."""
    if folder is None:
        return ""
    return quote(f"{os.path.relpath(Path(run).resolve(), folder.resolve())}/")


def _linked(results: Results) -> set[int]:
    """The settings whose first run stands in the table of runs."""
    shown = results.runs.sort("setting", "seed", "run", nulls_last=True).head(MOST_RUNS)
    return set(shown["setting"].drop_nulls())


def _uncounted(results: Results) -> list[str]:
    """A line for each run that is in no mean, and why."""
    rows = results.runs.filter(~pl.col("counted")).sort("run").to_dicts()
    lines = [
        f"{row['run']}: "
        + (
            "the same plan, settings and seed as another run"
            if row["state"] == "finished"
            else row["state"]
        )
        + (f" ({row['error']})" if row["error"] else "")
        for row in rows[:MOST_UNCOUNTED]
    ]
    more = len(rows) - MOST_UNCOUNTED
    return [*lines, f"{more:,} more in runs.csv"] if more > 0 else lines
