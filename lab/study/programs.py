"""The commands archive, tuning, rows and anneal of `python -m lab.study`."""

from __future__ import annotations

import sys

import torch

from igo.ground.files import write_atomically
from igo.runs.find import find
from lab.study import exchange, table, written
from lab.study import rows as row_numbers
from lab.study import tuning as validation
from lab.study.anneal import measure
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


def anneal(sweeps: list[str]) -> None:
    """Measure the accuracy after the anneal for each run of a sweep."""
    if len(sweeps) != 1:
        sys.exit("error: name a sweep: anneal study_methods")
    torch.set_num_threads(1)
    for name in _of_sweep(sweeps[0]):
        print(f"{name}: {measure(RUNS / name):.2f} %", flush=True)


def anew(sweeps: list[str]) -> None:
    """Measure loss and accuracy with new statistics of BatchNorm for each run of a sweep."""
    if len(sweeps) != 1:
        sys.exit("error: name a sweep: anew exchange")
    torch.set_num_threads(1)
    for name in _of_sweep(sweeps[0]):
        print(name, exchange.anew(RUNS / name), flush=True)


def _of_sweep(sweep: str) -> dict[str, Run]:
    """The finished runs of a sweep (a file of launch/sweep), by name."""
    sweeps = [str(path) for path in sorted((RUNS / "sweeps").glob(f"{sweep}-*"))]
    if not sweeps:
        sys.exit(f"error: no sweep {sweep} was run (make sweep SWEEP={sweep})")
    runs = of_folders(RUNS)
    return {folder.name: runs[folder.name] for folder in find(sweeps) if folder.name in runs}
