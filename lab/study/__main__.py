"""`python -m lab.study COMMAND`: archive SWEEP…, tuning, rows, after WHAT SWEEP, reproduce ROW.

archive   the finished runs of sweeps, into results/records
tuning    results/tuning.md, of the archive of study_tuning
rows      results/rows.yaml and the tables of README.md and results/README.md, of all archives
after     WHAT is annealed or tail: measured where a sweep's runs ended, into their folders
reproduce one row (ROW or ROW SEEDS) again with other seeds, judged by its test
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from igo.files import write_atomically
from igo.runs.find import find
from lab.study import after, judge, rows, table, tuning
from lab.study.records import ROOT, Run, of_archives, of_folders, write_archive

RUNS = ROOT / "runs"
OTHER = 100  # the first of a reproduction's seeds: the study's are below
MOST = 800  # seeds of a reproduction: those of the tuning are above


def main() -> None:
    """Carry out what was typed."""
    commands = {
        "archive": archive, "tuning": tune, "rows": make_rows, "after": look_after,
        "reproduce": reproduce,
    }  # fmt: skip
    if len(sys.argv) < 2 or sys.argv[1] in {"-h", "--help"}:
        print(__doc__)
    elif sys.argv[1] in commands:
        commands[sys.argv[1]](sys.argv[2:])
    else:
        sys.exit(f"error: no command {sys.argv[1]!r}\n{__doc__}")


def of_sweep(sweep: str) -> dict[str, Run]:
    """The finished runs of a sweep by the name of its file."""
    folders = [one.name for one in find([str(path) for path in sweeps(sweep)])]
    runs = of_folders(RUNS)
    return {name: runs[name] for name in folders if name in runs}


def sweeps(sweep: str) -> list[Path]:
    """The folders of a sweep."""
    found = sorted((RUNS / "sweeps").glob(f"{sweep}-*"))
    return found or sys.exit(f"error: no sweep {sweep} was run (make sweep SWEEP={sweep})")


def archive(names: list[str]) -> None:
    """Keep the records of sweeps."""
    if not names:
        sys.exit("error: name the sweeps whose records to keep: archive study_methods")
    for name in names:
        runs = of_sweep(name)
        write_archive(rows.path_of_archive(name), runs.values())
        print(f"{name}: {len(runs)} runs")


def tune(_: list[str]) -> None:
    """Write down which η_1 was chosen."""
    text = table_of_tuning()
    write_atomically(ROOT / "results" / "tuning.md", text)
    print(text)


def table_of_tuning() -> str:
    """Of the archived runs."""
    return tuning.table(tuning.validation(of_archives().values()))


def make_rows(_: list[str]) -> None:
    """Rows and tables, of the archives."""
    found = rows.read()
    rows.fill(found, of_archives())
    rows.write(found)
    table.put(found)
    print(table.table(found))


def look_after(words: list[str]) -> None:
    """Measure where a sweep's runs ended."""
    if len(words) != 2 or words[0] not in after.MEASURES:
        sys.exit(f"error: name {' or '.join(after.MEASURES)}, and a sweep: after tail study_law")
    torch.set_num_threads(1)
    what, sweep = words
    for name in of_sweep(sweep):
        print(name, after.measure(RUNS / name, [what]), flush=True)


def reproduce(words: list[str]) -> None:
    """One row with seeds of its own, by its test alone: nothing to adjust for."""
    known = {row["row"]: row for row in rows.read()}
    if not words or words[0] not in known:
        sys.exit(f"error: name one row: make reproduce ROW={'|'.join(known)}")
    row = known[words[0]]
    n = words[1] if len(words) > 1 else str((row["found"] or {"n": row["seeds"]})["n"])
    if not n.isdecimal() or not 2 <= int(n) <= MOST:
        sys.exit(f"error: SEEDS={n}: it must be a whole number from 2 to {MOST}")
    seeds = range(OTHER, OTHER + int(n))
    grids = ",".join(_grid(row["experiment"], arm, seeds) for arm in rows.arms(row))
    command = [sys.executable, "src/train.py", "-m", f"hydra.sweeper.grids=[{grids}]"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit("error: not all runs finished; the same command goes on")
    values = rows.values(row, of_folders(RUNS), seeds, row.get("endpoint", "accuracy"))
    found = rows.measured(row, values)
    judge.adjusted([found])
    verdicts = rows.verdicts_of(row, found)
    was = row["found"]["verdict"] if row["found"] else "not run"
    print(table.table([{**row, "found": {**verdicts, **found}}]))
    print(
        f"{words[0]}: {verdicts['verdict']} with seeds {seeds[0]} to {seeds[-1]} (the study: {was})"
    )


def _grid(experiment: str, arm: dict[str, object], seeds: range) -> str:
    settings = {"experiment": experiment, **arm, "seed": list(seeds)}
    return "{" + ",".join(f"{name}:{value}" for name, value in settings.items()) + "}"


if __name__ == "__main__":
    main()
