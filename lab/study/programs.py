"""The commands archive, tuning, rows and after of `python -m lab.study`."""

from __future__ import annotations

import sys

import torch

from igo.ground.files import write_atomically
from igo.runs.find import find
from lab.study import after as ends
from lab.study import rows as row_numbers
from lab.study import table, written
from lab.study import tuning as validation
from lab.study.records import Run, of_archives, of_folders, path_of_archive, write_archive
from lab.study.written import ROOT

RUNS = ROOT / "runs"


def archive(sweeps: list[str]) -> None:
    """Write the records of sweeps into results/records."""
    if not sweeps:
        sys.exit("error: name the sweeps whose records to keep: archive study_methods")
    for sweep in sweeps:
        runs = _of_sweep(sweep)
        write_archive(path_of_archive(sweep), runs.values())
        print(f"{sweep}: {len(runs)} runs")


def tuning(_: list[str]) -> None:
    """Write results/tuning.md."""
    text = validation.table(validation.validation(of_archives().values()))
    write_atomically(ROOT / "results" / "tuning.md", text)
    print(text)


def rows(_: list[str]) -> None:
    """Write results/rows.yaml and the tables, from the archives."""
    study = written.read()
    row_numbers.fill(study, of_archives())
    written.write(study)
    table.put(study)
    print(table.table(study))


def after(words: list[str]) -> None:
    """Make a measurement at the end of each run of a sweep."""
    if len(words) != 2 or words[0] not in ends.MEASURES:
        sys.exit(f"error: name {' or '.join(ends.MEASURES)}, and a sweep: after tail study_law")
    torch.set_num_threads(1)
    measure_name, sweep = words
    for name in _of_sweep(sweep):
        print(name, ends.measure(RUNS / name, [measure_name]), flush=True)


def _of_sweep(sweep: str) -> dict[str, Run]:
    """The finished runs of a sweep (a file of launch/sweep), by name."""
    sweeps = [str(path) for path in sorted((RUNS / "sweeps").glob(f"{sweep}-*"))]
    if not sweeps:
        sys.exit(f"error: no sweep {sweep} was run (make sweep SWEEP={sweep})")
    runs = of_folders(RUNS)
    return {folder.name: runs[folder.name] for folder in find(sweeps) if folder.name in runs}
