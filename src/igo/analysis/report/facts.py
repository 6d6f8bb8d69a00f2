"""What a reader needs to judge runs or to repeat them: how many, on what, by which software."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl

from igo.analysis.report.results import Results, Row
from igo.analysis.table.names import DATASETS
from igo.analysis.table.table import constants


def facts(results: Results) -> dict[str, Any]:
    """What stands at the head of the page."""
    runs, settings = results.runs, results.settings
    counts = settings.filter(pl.col("n") > 0)["n"].to_list()
    low, high = min(counts, default=0), max(counts, default=0)
    states = runs["state"].value_counts().sort("count", "state", descending=[True, False])
    seconds = float(runs["seconds"].sum())
    names = settings["dataset.name"].unique().sort().to_list()
    return {
        "runs": len(runs),
        "counted": int(runs["counted"].sum()),
        "settings": len(settings),
        "seeds": str(low) if low == high else f"{low}–{high}",
        "datasets": ", ".join(DATASETS.get(name, name) for name in names) or "–",
        "models": ", ".join(settings["model.name"].unique().sort()) or "–",
        "time": _duration(seconds),
        "states": ", ".join(f"{count:,} {state}" for state, count in states.iter_rows()),
    }


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def how(results: Results, command: str) -> list[tuple[str, str]]:
    """Name and value of all that a reader needs to judge or repeat it."""
    common = constants(results.runs.drop("setting", "counted", "folder", "command"))
    hardware = [_hardware(status.get("hardware")) for status in results.statuses]
    versions = [_versions(status) for status in results.statuses]
    commits = results.runs.filter("counted")["commit"].fill_null("unknown")
    started = sorted(
        s for status in results.statuses if isinstance(s := status.get("started"), str)
    )
    rows = [
        ("This page", command),
        ("All settings in common", ", ".join(f"{k}={_typed(v)}" for k, v in common.items())),
        ("Hardware", _counts(hardware)),
        ("Software", _counts(versions)),
        ("Commit", _counts(commits.to_list())),
        ("Runs started", f"{started[0][:10]} to {started[-1][:10]}" if started else ""),
        ("Seeds", ", ".join(map(str, results.runs.filter("counted")["seed"].unique().sort()))),
    ]
    return [(name, value) for name, value in rows if value]


def _typed(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _counts(values: Sequence[str]) -> str:
    """Each value once, with how many runs have it where they differ."""
    counted = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    if len(counted) == 1:
        return counted[0][0]
    return "; ".join(f"{value} ({count} runs)" for value, count in counted)


def _hardware(facts: object) -> str:
    if not isinstance(facts, dict):
        return "unknown"
    parts = [str(facts[name]) for name in ("gpu", "cpu") if name in facts]
    parts += [
        f"{facts[name]} {name.removesuffix('s') if facts[name] == 1 else name}"
        for name in ("cores", "threads")
        if name in facts
    ]
    if facts.get("ranks", 1) != 1:
        parts.append(f"{facts['ranks']} processes")
    return ", ".join([*parts, str(facts.get("precision", ""))])


def _versions(status: Row) -> str:
    found = status.get("versions")
    known = found if isinstance(found, dict) else {}
    parts = [
        f"{name} {known[name]}" for name in ("torch", "torchvision", "timm") if known.get(name)
    ]
    python = status.get("python")
    return ", ".join([f"Python {python}"] * bool(python) + parts) or "unknown"
