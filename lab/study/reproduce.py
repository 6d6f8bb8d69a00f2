"""`make reproduce`: run a row of the study again with other seeds, or list the rows."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

from igo.ground.errors import nearest
from igo.ground.words import counted
from lab.study import written
from lab.study.written import ROOT, Row

RUNS = ROOT / "runs"
FIRST_SEED = 100  # of a reproduction; the study has smaller seeds
LEAST, MOST = 2, 800  # number of seeds of a reproduction; the seeds of the tuning come after
FAILED = 1  # exit code of a sweep some of whose runs failed


def reproduce(words: list[str]) -> None:
    """List the rows; or run a row with other seeds and judge it alone."""
    rows_by_name = {row["row"]: row for row in written.read()}
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
    cells = [("ROW", "runs", "claim")]
    for row in rows:
        cells.append((row["row"], str(len(written.arms(row)) * planned(row)), row["claim"]))
    width = max(len(name) for name, *_ in cells)
    return [
        "make reproduce ROW=NAME SEEDS=N runs one of these rows again with other seeds.",
        "Without SEEDS it takes as many seeds as the study. A run takes seconds, on all",
        "of Fashion-MNIST (scale) minutes. results/README.md has what the study found.",
        "",
        *(f"{name:<{width}}{runs:>4} {claim}" for name, runs, claim in cells),
    ]


def again(row: Row, seeds: range) -> None:
    """Run a row with these seeds, and print its numbers and its verdict."""
    from lab.study import judge, table
    from lab.study import rows as row_numbers
    from lab.study.records import of_folders

    run_all(row, row_numbers.names(row, seeds), seeds)
    values = row_numbers.values(row, of_folders(RUNS), seeds, row.get("endpoint", "accuracy"))
    numbers = row_numbers.measured(row, values)
    judge.adjusted([numbers])
    verdict = row_numbers.verdict(row, numbers)
    before = row["found"]["verdict"] if row["found"] else "not run"
    print(table.table([{**row, "found": {"verdict": verdict, **numbers}}]))
    print(f"{row['row']}: {verdict} with seeds {seeds[0]} to {seeds[-1]} (the study: {before})")


def run_all(row: Row, names: Sequence[Sequence[str]], seeds: range) -> None:
    """Train the runs that are not finished; SystemExit if a run does not finish."""
    grids = ",".join(_grid(row["experiment"], arm, seeds) for arm in written.arms(row))
    code = sweep(f"hydra.sweeper.grids=[{grids}]", "hydra.launcher.retry_failed=true")
    if code in (0, FAILED):
        if left := _unfinished(names):
            sys.exit(
                f"error: {left} of {counted(sum(map(len, names)), 'run')} did not finish, the table"
                " above says why; the same command runs them again"
            )
    elif code < 0:
        name = signal.Signals(-code).name
        sys.exit(f"error: the sweep was killed by {name}; the same command continues it")
    else:  # the sweep has printed why it ended
        sys.exit(code)


def sweep(*words: str) -> int:
    """Run a sweep with these words; return its exit code.

    Ctrl-C reaches the sweep too, and the sweep stops its runs. Without the handler,
    ``subprocess.run`` would kill the sweep at once.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        command = [sys.executable, "src/train.py", "-m", *words]
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def _unfinished(names: Sequence[Sequence[str]]) -> int:
    from igo.runs.folder import state_of

    return sum(state_of(RUNS / name) != "finished" for arm in names for name in arm)


def _grid(experiment: str, arm: dict[str, object], seeds: range) -> str:
    settings = {"experiment": experiment, **arm, "seed": list(seeds)}
    return "{" + ",".join(f"{name}:{value}" for name, value in settings.items()) + "}"
