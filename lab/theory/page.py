"""The page of the results: every row with its picture, its numbers and its verdict."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
import torch

from igo.ground.files import write_atomically
from lab.theory.row import VERDICTS, Check, Frames, Row, Seen, Settings, Study

HEAD = """# The theory, stated and seen

{counts}

Every verdict is computed: *agrees* when all numbers of a row lie in the range that the statement
asks for, *in part* when some do, *disagrees* when none does, *undecided* when an interval has an
end of the range inside, or when a negative control (the same check where the statement must fail)
does not fail. Brackets are 95 % intervals. Every random draw comes from the seed in the command.

```
{command}   # make theory
```

{hardware}

Not run are these statements of the slides: a sequence of functions, smoothed ever less, leads to
the global minimum; graduated optimization is a method of global optimization; with enough
computing, plain SGD makes global optimization of networks possible; SGD generalises well, too large
a batch worse; score-based models use graduated optimization implicitly.
[The log](../../docs/log.md#what-went) has what earlier runs showed of them. That a network's noise
falls as 1/√b is in [results/noise](../noise/README.md). ResNet18 on CIFAR-100 is not here: network
training at that size is `src/train.py`.
"""


@dataclass(frozen=True)
class Entry:
    """A row with its study, its result, and the names of its frames."""

    study: str
    row: Row
    seen: Seen
    data: tuple[str, ...]


def entries(studies: Mapping[str, Study], frames: Frames) -> list[Entry]:
    """Return the rows of all studies whose frames are there, in order."""
    return [
        Entry(name, row, row.look(frames), study.frames)
        for name, study in studies.items()
        if all(frame in frames for frame in study.frames)
        for row in study.rows
    ]


def write(folder: Path, all_entries: list[Entry], settings: Settings) -> None:
    """Write README.md into the results folder."""
    head = HEAD.format(
        counts=_counts(all_entries),
        command=f"python -m lab.theory seed={settings.seed} workers={settings.workers}",
        hardware=f"Hardware of the last run: {_hardware()}.",
    )
    index = ["| # | stated | verdict |", "|---|---|---|"]
    sections, shown = [], set[str]()
    for number, entry in enumerate(all_entries, 1):
        stated = _cell(entry.row.stated)
        index.append(f"| [{number}](#row-{number}) | {stated} | **{entry.seen.verdict}** |")
        sections.append(_section(number, entry, shown))
    write_atomically(folder / "README.md", "\n".join([head, *index, "", *sections]))


def _counts(all_entries: list[Entry]) -> str:
    verdicts = [entry.seen.verdict for entry in all_entries]
    counts = ", ".join(f"{verdict} {verdicts.count(verdict)}" for verdict in VERDICTS)
    return f"**{len(all_entries)} statements: {counts}.**"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _section(number: int, entry: Entry, shown: set[str]) -> str:
    """Return a row's section. A picture of several rows is shown at the first of them."""
    row, seen = entry.row, entry.seen
    lines = [f'<a id="row-{number}"></a>', "", f"## {number}. {row.stated}", ""]
    lines += [f"**{seen.verdict}** · {row.source}", ""]
    if row.picture and row.picture not in shown:
        shown.add(row.picture)
        lines += [f"![{row.stated}]({row.picture})", ""]
    lines += [f"Run: {seen.ran}.", ""]
    lines += ["| number | found | asked | |", "|---|---|---|---|"]
    lines += _lines(seen.parts, "", ("no", "yes", "open"))
    lines += _lines(seen.controls, "control: ", ("fails, as it must", "does not fail", "open"))
    lines += ["", *([seen.note, ""] if seen.note else [])]
    if not seen.controls:
        lines += [f"No control: {seen.no_control}.", ""]
    data = " ".join(f"[{name}.csv]({name}.csv)" for name in entry.data)
    code = f"[{entry.study}.py](../../lab/theory/studies/{entry.study}.py)"
    again = f"`python -m lab.theory study={entry.study}`"
    lines += [f"{code} (`{row.look.__name__}`) · {again} · {data}", ""]
    return "\n".join(lines)


def _lines(checks: Iterable[Check], prefix: str, words: tuple[str, str, str]) -> list[str]:
    return [
        f"| {prefix}{_cell(c.what)} | {c.number} | {c.asked} | "
        f"{words[2] if c.holds is None else words[int(c.holds)]} |"
        for c in checks
    ]


def _hardware() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, "
    versions += f"SciPy {scipy.__version__}, PyTorch {torch.__version__.split('+')[0]}"
    return f"{os.cpu_count()} cores, {model}; {versions}"
