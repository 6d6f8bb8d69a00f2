"""One row again with seeds of its own; without a row, the list of them, at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

from igo.errors import nearest
from igo.words import counted
from lab.study import written
from lab.study.written import ROOT, Row

RUNS = ROOT / "runs"
OTHER = 100  # the first of a reproduction's seeds: the study's are below
MOST = 800  # seeds of a reproduction: those of the tuning are above
LEAST = 2
FAILED, STOPPED = 1, 128  # how a sweep ends of which runs failed; from where on by a signal


def reproduce(words: list[str]) -> None:
    """List the rows, or run one with other seeds and judge it, with nothing to adjust for."""
    known = {row["row"]: row for row in written.read()}
    if not words:
        print("\n".join(listed(list(known.values()))))
        return
    if words[0] not in known:
        hint = nearest(words[0], known)
        sys.exit(f"error: there is no row {words[0]!r}.{hint} make reproduce alone lists the rows")
    row = known[words[0]]
    n = words[1] if len(words) > 1 else str(planned(row))
    if not n.isdecimal() or not LEAST <= int(n) <= MOST:
        sys.exit(f"error: SEEDS={n}: it must be a whole number from {LEAST} to {MOST}")
    again(row, range(OTHER, OTHER + int(n)))


def planned(row: Row) -> int:
    """As many seeds as the study had of it, or was to have; no fewer than can be compared."""
    return max(LEAST, int((row["found"] or {"n": row["seeds"]})["n"]))


def listed(rows: Sequence[Row]) -> list[str]:
    """A line a row: its name, how many runs it takes, and what it claims."""
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
    """Run a row with these seeds, and print its line and its verdict."""
    from lab.study import judge, table
    from lab.study import rows as judged
    from lab.study.records import of_folders

    run_all(row, judged.names(row, seeds), seeds)
    values = judged.values(row, of_folders(RUNS), seeds, row.get("endpoint", "accuracy"))
    found = judged.measured(row, values)
    judge.adjusted([found])
    verdicts = judged.verdicts_of(row, found)
    was = row["found"]["verdict"] if row["found"] else "not run"
    print(table.table([{**row, "found": {**verdicts, **found}}]))
    print(
        f"{row['row']}: {verdicts['verdict']} with seeds {seeds[0]} to {seeds[-1]}"
        f" (the study: {was})"
    )


def run_all(row: Row, names: Sequence[Sequence[str]], seeds: range) -> None:
    """Train what is not finished; SystemExit where a run is left."""
    grids = ",".join(_grid(row["experiment"], arm, seeds) for arm in written.arms(row))
    code = sweep(f"hydra.sweeper.grids=[{grids}]", "hydra.launcher.retry_failed=true")
    if code in (0, FAILED):
        left = _unfinished(names)
        if left:
            sys.exit(
                f"error: {left} of {counted(sum(map(len, names)), 'run')} did not finish, the table"
                " above says why; the same command runs them again"
            )
    elif code < 0:
        name = signal.Signals(-code).name
        sys.exit(f"error: the sweep was killed by {name}; the same command continues it")
    else:  # the sweep itself said what was wrong, or that it was stopped
        sys.exit(code)


def sweep(*words: str) -> int:
    """Run a sweep of these words; its exit code.

    Ctrl-C reaches the sweep too, which stops its runs; subprocess.run would kill it at once.
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
