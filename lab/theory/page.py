"""The page of the results: one table of the rows, how each was run, and the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from igo.ground.files import write_atomically
from lab.theory.row import VERDICTS, Check, Frames, Row, Seen, Study

HEAD = """# The theory, stated and run

**{counts}**

*Agrees*: all numbers of a row lie in the range that the statement asks for; *in part*: some do;
*disagrees*: none does; *undecided*: an end of the range lies in an interval (95 %, in brackets), or
a control, where the statement must fail, does not. The table has the first number that decides,
[checks.csv](checks.csv) all. A row's number leads to its code; in brackets is the slide (命題
proposition, 定理 theorem, 補題 lemma, 仮定 assumption).
Symbols: [the idea](../../docs/idea.md#symbols).

    python -m lab.theory                            # all of it: make theory
    python -m lab.theory study=[nice,convexity]     # some studies

Not run: statements about the training of networks, about generalisation and about score-based
models. That a network's noise falls as 1/√b is in [results/noise](../noise/README.md).

| | stated | verdict | number |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Entry:
    """A row with its study and its result."""

    study: str
    row: Row
    seen: Seen

    @property
    def name(self) -> str:
        """The name of the row's function, which is its anchor."""
        return self.row.look.__name__

    @property
    def deciding(self) -> Check:
        """The first number that decides: one that fails, else one that is open, else any."""
        by_result = {False: 0, None: 1, True: 2}
        return min(self.seen.parts, key=lambda check: by_result[check.holds])


def write(folder: Path, studies: Mapping[str, Study], frames: Frames) -> None:
    """Write README.md and checks.csv from the tables of all studies that the folder has."""
    here = {name: s for name, s in studies.items() if all(f in frames for f in s.frames)}
    entries = [
        Entry(name, row, row.look(frames)) for name, study in here.items() for row in study.rows
    ]
    entries.sort(key=lambda entry: VERDICTS.index(entry.seen.verdict))
    verdicts = [entry.seen.verdict for entry in entries]
    counts = ", ".join(f"{verdict} {verdicts.count(verdict)}" for verdict in VERDICTS)
    lines = [HEAD.format(counts=f"{len(entries)} statements: {counts}.") + _table(entries), ""]
    lines += ["## How each was run, and why it came out so", ""]
    lines += [
        f"{number}. {entry.seen.ran[0].upper()}{entry.seen.ran[1:]}."
        f"{f' {entry.seen.note}.' if entry.seen.note else ''}"
        for number, entry in enumerate(entries, 1)
    ]
    for study in here.values():
        for picture, draw in study.figures.items():
            caption = str(draw.__doc__).splitlines()[0]
            lines += ["", f"![{caption}]({picture})"]
    write_atomically(folder / "README.md", "\n".join([*lines, ""]))
    write_atomically(folder / "checks.csv", _checks(entries).write_csv())


def _table(entries: list[Entry]) -> str:
    lines = []
    for number, entry in enumerate(entries, 1):
        stated = f"{entry.row.stated} ({entry.row.source})"
        check = entry.deciding
        cells = [
            f'<a id="{entry.name}"></a>[{number}](../../lab/theory/studies/{entry.study}.py)',
            stated, f"**{entry.seen.verdict}**",
            f"{check.what}: {check.number} (asked: {check.asked})",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _checks(entries: list[Entry]) -> pl.DataFrame:
    """Every number of every row, with its interval, the range asked for, and whether it holds."""
    return pl.DataFrame(
        [
            {
                "row": number, "name": entry.name, "verdict": entry.seen.verdict, "kind": kind,
                "number": check.what, "found": check.number, "asked": check.asked,
                "holds": check.holds,
            }
            for number, entry in enumerate(entries, 1)
            for kind, checks in (("part", entry.seen.parts), ("control", entry.seen.controls))
            for check in checks
        ]
    )  # fmt: skip
