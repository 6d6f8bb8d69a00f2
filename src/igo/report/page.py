"""The report as one HTML page, with its styles and figures inside and without scripts."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from igo.ground.words import counted
from igo.report import families
from igo.report.comparison import Pair, in_range, p_value, signed
from igo.report.content import Section
from igo.report.names import data_set, why_null
from igo.report.results import Results, Row
from igo.report.table import constants

HERE = Path(__file__).parent
MOST_RUNS, MOST_SETTINGS, MOST_UNCOUNTED, MOST_COMMANDS = 500, 200, 30, 60


def render(
    sections: Sequence[Section], left_out: Sequence[str], results: Results, command: str,
    folder: Path | None = None,
) -> str:  # fmt: skip
    """The page of a report.

    Args:
        sections: its sections in order.
        left_out: what each part that is left out would need.
        results: the runs that it was made of.
        command: the command that makes the page again.
        folder: the page's folder, for links to the run folders; None for no links.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": _number, "p_value": p_value, "tied": _tied, "difference": _difference,
        "place": _place, "counted": counted, "svg": lambda figure: Markup(figure.svg()),
    }  # fmt: skip
    labels = _labels(results)
    ordered = results.runs.sort("setting", "seed", "run", nulls_last=True).head(MOST_RUNS)
    settings = [(label, results.row(number)) for number, label in labels.items()][:MOST_SETTINGS]
    return environment.get_template("page.html").render(
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        sections=sections,
        left_out=left_out,
        most_commands=MOST_COMMANDS,
        settings=settings,
        frame=_frame(row for _, row in settings),
        runs=[
            {**row, "label": labels.get(row["setting"], "–"), "link": _link(row["folder"], folder)}
            for row in ordered.iter_rows(named=True)
        ],
        linked=set(ordered["setting"].drop_nulls()),
        uncounted=_uncounted(results),
        facts=_facts(results),
        how=_how(results, command),
        common={k: f"{v:.6g}" if isinstance(v, float) else v for k, v in _common(results).items()},
    )


def _tied(text: str) -> str:
    """Keep ``p = 0.5``, ``η₁ 0.1`` and ``91 %`` on one line."""
    text = re.sub(r"([₁βM]) (\d)", "\\1\u00a0\\2", text)
    for breakable in (" = ", " %", " ≤ ", " > ", " × "):
        text = text.replace(breakable, breakable.replace(" ", "\u00a0"))
    return text


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "–" if value is None else f"{value * factor:{form}}"


def _difference(pair: Pair, form: str = ".2f", factor: float = 100) -> str:
    """``+0.44 [−0.01, +0.90]``."""
    if pair.difference is None:
        return "–"
    difference = signed(factor * pair.difference, form)
    if not pair.sd or pair.low is None or pair.high is None:  # an interval has a width
        return difference
    return f"{difference} [{signed(factor * pair.low, form)}, {signed(factor * pair.high, form)}]"


def _frame(rows: Iterable[Row]) -> tuple[float, float]:
    """The smallest and the largest accuracy in a table, intervals included."""
    names = [f"test/accuracy_{statistic}" for statistic in ("low", "mean", "high")]
    values = [row[name] for row in rows for name in names if row[name] is not None]
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


def _link(run: str, folder: Path | None) -> str:
    """The address of a run's folder, relative to the page's folder."""
    if folder is None:
        return ""
    return quote(f"{os.path.relpath(Path(run).resolve(), folder.resolve())}/")


def _uncounted(results: Results) -> Sequence[str]:
    """A line for each run that is in no mean, with the reason."""
    rows = results.runs.filter(~pl.col("counted")).sort("run").to_dicts()
    twice = "the same plan, settings and seed as another run"
    lines = [
        f"{row['run']}: {twice if row['state'] == 'finished' else row['state']}"
        + (f" ({row['error']})" if row["error"] else "")
        for row in rows[:MOST_UNCOUNTED]
    ]
    more = len(rows) - MOST_UNCOUNTED
    return [*lines, f"{more:,} more in runs.csv"] if more > 0 else lines


def _facts(results: Results) -> dict[str, Any]:
    """The numbers at the head of the page."""
    runs, settings = results.runs, results.settings
    states = runs["state"].value_counts().sort("count", "state", descending=[True, False])
    seconds = float(runs["seconds"].sum())
    minutes = f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
    names = sorted({data_set(row) for row in settings.iter_rows(named=True)})
    return {
        "runs": len(runs),
        "counted": int(runs["counted"].sum()),
        "settings": len(settings),
        "seeds": in_range(settings.filter(pl.col("n") > 0)["n"].to_list() or [0]),
        "datasets": ", ".join(names) or "–",
        "models": ", ".join(settings["model.name"].unique().sort()) or "–",
        "time": f"{seconds:.0f} s" if seconds < 120 else minutes,
        "states": ", ".join(f"{count:,} {state}" for state, count in states.iter_rows()),
    }


def _common(results: Results) -> Row:
    """The settings that all runs have in common."""
    return constants(results.runs.drop("setting", "counted", "folder", "command"))


def _how(results: Results, command: str) -> list[tuple[str, str]]:
    """Name and value of each row of “How it was run”."""
    used = results.runs.filter("counted")
    started = sorted(str(s["started"])[:10] for s in results.statuses if s.get("started"))
    rows = [
        ("This page", command),
        ("Noise level", "; ".join(why_null(results.runs))),
        ("Hardware", _counts([_hardware(status.get("hardware")) for status in results.statuses])),
        ("Software", _counts([_versions(status) for status in results.statuses])),
        ("Commit", _counts(used["commit"].fill_null("unknown").to_list())),
        ("Runs started", f"{started[0]} to {started[-1]}" if started else ""),
        ("Seeds", ", ".join(map(str, used["seed"].unique().sort()))),
    ]
    return [(name, value) for name, value in rows if value]


def _counts(values: Sequence[str]) -> str:
    """Each value once; if there are several, with the number of runs of each."""
    each = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    if len(each) == 1:
        return each[0][0]
    return "; ".join(f"{value} ({count} runs)" for value, count in each)


def _hardware(facts: object) -> str:
    if not isinstance(facts, dict):
        return "unknown"
    words = [str(facts[name]) for name in ("gpu", "cpu") if name in facts]
    counts = {"core": facts.get("cores"), "thread": facts.get("threads")}
    words += [counted(number, name) for name, number in counts.items() if number is not None]
    if facts.get("ranks", 1) != 1:
        words.append(f"{facts['ranks']} processes")
    return ", ".join([*words, str(facts.get("precision", ""))])


def _versions(status: Row) -> str:
    recorded = status.get("versions")
    versions = {"Python": status.get("python"), **(recorded if isinstance(recorded, dict) else {})}
    shown = [name for name in ("Python", "torch", "torchvision", "timm") if versions.get(name)]
    return ", ".join(f"{name} {versions[name]}" for name in shown) or "unknown"
