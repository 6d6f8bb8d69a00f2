"""What a reader needs to judge or repeat the runs: their number, data, hardware and software."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl

from igo.analysis.table.names import data_set, why_null
from igo.analysis.table.table import constants
from igo.ground.words import counted
from igo.report.phrases import in_range
from igo.report.results import Results, Row


def facts(results: Results) -> dict[str, Any]:
    """The numbers at the head of the page."""
    runs, settings = results.runs, results.settings
    counts = settings.filter(pl.col("n") > 0)["n"].to_list()
    states = runs["state"].value_counts().sort("count", "state", descending=[True, False])
    seconds = float(runs["seconds"].sum())
    names = sorted({data_set(row) for row in settings.iter_rows(named=True)})
    return {
        "runs": len(runs),
        "counted": int(runs["counted"].sum()),
        "settings": len(settings),
        "seeds": in_range(counts or [0]),
        "datasets": ", ".join(names) or "–",
        "models": ", ".join(settings["model.name"].unique().sort()) or "–",
        "time": _duration(seconds),
        "states": ", ".join(f"{count:,} {state}" for state, count in states.iter_rows()),
    }


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def how(results: Results, command: str) -> list[tuple[str, str]]:
    """Name and value of each row of “How it was run”."""
    common = constants(results.runs.drop("setting", "counted", "folder", "command"))
    used = results.runs.filter("counted")
    started = sorted(str(status["started"])[:10] for status in results.statuses
                     if status.get("started"))  # fmt: skip
    rows = [
        ("This page", command),
        ("All settings in common", ", ".join(f"{k}={_typed(v)}" for k, v in common.items())),
        ("Noise level", "; ".join(why_null(results.runs))),
        ("Hardware", _counts([_hardware(status.get("hardware")) for status in results.statuses])),
        ("Software", _counts([_versions(status) for status in results.statuses])),
        ("Commit", _counts(used["commit"].fill_null("unknown").to_list())),
        ("Runs started", f"{started[0]} to {started[-1]}" if started else ""),
        ("Seeds", ", ".join(map(str, used["seed"].unique().sort()))),
    ]
    return [(name, value) for name, value in rows if value]


def _typed(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


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
