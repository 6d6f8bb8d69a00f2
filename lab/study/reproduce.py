"""`make reproduce`: run a row of a study again with other seeds, or list the rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from igo.ground.errors import counted, nearest
from lab.study import rows as study
from lab.study import seeds as whole
from lab.study import table
from lab.study.records import of_study
from lab.study.rows import Row

FIRST_SEED = 100  # of a reproduction; no study has seeds from 100 to 299
LEAST, MOST = 2, 200  # number of seeds of a reproduction


def reproduce(words: list[str]) -> None:
    """List the rows; or run a row with other seeds and judge it alone."""
    rows_by_name = {row["row"]: row for row in study.read()}
    if not words:
        print("\n".join(listed(list(rows_by_name.values()))))
        return
    if words[0] not in rows_by_name:
        hint = nearest(words[0], rows_by_name)
        sys.exit(f"error: there is no row {words[0]!r}.{hint} make reproduce alone lists the rows")
    row = rows_by_name[words[0]]
    n = words[1] if len(words) > 1 else str(planned(row))
    if not n.isdecimal() or not LEAST <= int(n) <= MOST:
        sys.exit(f"error: SEEDS={n}: it must be a whole number from {LEAST} to {MOST}")
    again(row, range(FIRST_SEED, FIRST_SEED + int(n)))


def planned(row: Row) -> int:
    """The study's number of seeds, as run or as planned; at least LEAST."""
    return max(LEAST, int((row["found"] or {"n": row["seeds"]})["n"]))


def listed(rows: Sequence[Row]) -> list[str]:
    """A line for each row: its name, the number of its runs, and its claim."""
    width = max(len(row["row"]) for row in rows)
    return [
        "make reproduce ROW=NAME SEEDS=N runs one of these rows again with other seeds.",
        "Without SEEDS it takes as many as the study. A run takes seconds, on CIFAR-100 minutes.",
        "Start the command once for each core: the processes share the runs.",
        "",
        f"{'ROW':<{width}} runs claim",
        *(f"{row['row']:<{width}}{2 * planned(row):>5} {row['claim']}" for row in rows),
    ]


def again(row: Row, seeds: range) -> None:
    """Run a row with these seeds, and print its numbers and its verdict."""
    whole.run([row], seeds)
    names, runs = [name for arm in study.names(row, seeds) for name in arm], of_study()
    done = [name in runs and ("anneal" not in row or runs[name].after) for name in names]
    if left := len(names) - sum(map(bool, done)):
        sys.exit(
            f"error: {left} of {counted(len(names), 'run')} not done: failed, or another process"
            " has it; the same command goes on"
        )
    (found,) = study.judged([row], [study.values(row, runs, seeds)])
    before = row["found"]["verdict"] if row["found"] else "not judged"
    print(table.table([{**row, "found": found}]))
    print(
        f"{row['row']}: {found['verdict']} with seeds {seeds[0]} to {seeds[-1]} (the study:"
        f" {before})"
    )
