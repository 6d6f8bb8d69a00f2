"""The commands that keep records, make the tables of them, and measure where runs ended."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from igo.files import write_atomically
from igo.runs.find import find
from lab.study import after as measures
from lab.study import rows as judged
from lab.study import table, written
from lab.study import tuning as tuned
from lab.study.records import Run, of_archives, of_folders, path_of_archive, write_archive
from lab.study.written import ROOT

RUNS = ROOT / "runs"


def archive(names: list[str]) -> None:
    """Keep the records of sweeps."""
    if not names:
        sys.exit("error: name the sweeps whose records to keep: archive study_methods")
    for name in names:
        runs = _of_sweep(name)
        write_archive(path_of_archive(name), runs.values())
        print(f"{name}: {len(runs)} runs")


def tuning(_: list[str]) -> None:
    """Write down which η_1 was chosen."""
    text = tuned.table(tuned.validation(of_archives().values()))
    write_atomically(ROOT / "results" / "tuning.md", text)
    print(text)


def rows(_: list[str]) -> None:
    """Rows and tables, of the archives."""
    found = written.read()
    judged.fill(found, of_archives())
    written.write(found)
    table.put(found)
    print(table.table(found))


def after(words: list[str]) -> None:
    """Measure where a sweep's runs ended."""
    if len(words) != 2 or words[0] not in measures.MEASURES:
        sys.exit(f"error: name {' or '.join(measures.MEASURES)}, and a sweep: after tail study_law")
    torch.set_num_threads(1)
    what, sweep = words
    for name in _of_sweep(sweep):
        print(name, measures.measure(RUNS / name, [what]), flush=True)


def _of_sweep(sweep: str) -> dict[str, Run]:
    """The finished runs of a sweep by the name of its file."""
    folders = [one.name for one in find([str(path) for path in _sweeps(sweep)])]
    runs = of_folders(RUNS)
    return {name: runs[name] for name in folders if name in runs}


def _sweeps(sweep: str) -> list[Path]:
    """The folders of a sweep."""
    found = sorted((RUNS / "sweeps").glob(f"{sweep}-*"))
    return found or sys.exit(f"error: no sweep {sweep} was run (make sweep SWEEP={sweep})")
