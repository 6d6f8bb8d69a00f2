"""What a study hands back, and how the results folder is written from it."""

import csv
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import scipy

Verdict = Literal["agrees", "in part", "disagrees", "not run"]


def silent(_message: str) -> None:
    """Report nothing: the progress of a study in a process of its own."""


@dataclass(frozen=True)
class Settings:
    """What a person can turn: output folder, seed, and the size of the comparison."""

    output: Path
    seed: int = 0
    starts: int = 20
    budget: int = 1000
    workers: int = 2
    progress: Callable[[str], None] = silent


@dataclass(frozen=True)
class Row:
    """One statement of the source: what it says, what was run, what was seen."""

    source: str
    stated: str
    ran: str
    saw: str
    verdict: Verdict
    files: str = ""


def write_csv(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Write records with the keys of the first as header; numbers to 6 significant digits."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow({key: _plain(value) for key, value in record.items()})


def _plain(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value


def save_rows(output: Path, study: str, rows: Sequence[Row], order: Sequence[str]) -> None:
    """Replace the rows of `study` in statements.csv and write README.md from all of them."""
    path = output / "statements.csv"
    records: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="") as file:
            records = [r for r in csv.DictReader(file) if r["study"] != study]
    records += [{"study": study} | asdict(row) for row in rows]
    records.sort(key=lambda r: order.index(r["study"]) if r["study"] in order else len(order))
    names = ["study", *[field.name for field in fields(Row)]]
    write_csv(path, [{name: r[name] for name in names} for r in records])


def write_readme(output: Path, settings: Settings, seconds: Mapping[str, float]) -> None:
    """Write the table "stated / what we ran / what we saw" from statements.csv."""
    with (output / "statements.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    counts = {
        v: sum(r["verdict"] == v for r in records)
        for v in ("agrees", "in part", "disagrees", "not run")
    }
    lines = [
        "# The theory, stated and seen",
        "",
        "Written by the run from the numbers it measured; edit the studies, not this file.",
        "",
        "```",
        f"igo theory study=all seed={settings.seed} starts={settings.starts} "
        f"budget={settings.budget} workers={settings.workers}   # make theory",
        "```",
        "",
        f"Hardware: {_hardware()}. Python {platform.python_version()}, NumPy {np.__version__}, "
        f"SciPy {scipy.__version__}. Last run: "
        + ", ".join(f"{name} {t:.0f} s" for name, t in seconds.items())
        + ".",
        "",
        f"{len(records)} statements: {counts['agrees']} agree with what was seen, "
        f"{counts['in part']} in part, {counts['disagrees']} disagree, "
        f"{counts['not run']} not run.",
        "± and brackets are 95 % intervals. Every random draw comes from the seed in the command.",
        "",
        "| # | source | stated | what we ran | what we saw | verdict | files |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, r in enumerate(records, 1):
        files = ", ".join(f"[{name}]({name})" for name in r["files"].split())
        cells = [r["source"], r["stated"], r["ran"], r["saw"], f"**{r['verdict']}**", files]
        lines.append(f"| {number} | " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    (output / "README.md").write_text("\n".join(lines) + "\n")


def _hardware() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = found[0].split(":")[1].strip() if found else model
    return f"{os.cpu_count()} cores, {model}"


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a success rate."""
    z = 1.959964
    rate = successes / trials
    centre = rate + z**2 / (2 * trials)
    half = z * np.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return float(max(0.0, (centre - half) / scale)), float(min(1.0, (centre + half) / scale))
