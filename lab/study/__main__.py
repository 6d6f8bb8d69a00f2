"""`python -m lab.study COMMAND`, for the studies of results/study.md and results/exchange.md.

archive SWEEP…    writes the finished runs of sweeps into results/records
tuning SWEEP      prints the η_1 that held-out images choose, from an archive
rows              writes results/rows.yaml, and the tables and figures, from the archives
anew SWEEP        measures the ends of a sweep's runs with new statistics of BatchNorm
halved            writes the images of results/exchange.md into data
cifar100 [FOLDER] writes data/cifar100.npz from class folders or the original files in FOLDER
reproduce ROW N   runs a row again with N other seeds and judges it; alone: lists the rows
"""

from __future__ import annotations

import sys

import torch

from igo.ground.errors import UserError
from igo.runs.find import find
from lab.study import ends, exchange, images, records, table, tuning
from lab.study import rows as study
from lab.study.records import RECORDS, ROOT, RUNS, Run
from lab.study.reproduce import reproduce

PAGES = ROOT / "results"


def archive(sweeps: list[str]) -> None:
    """Write the records of sweeps into results/records."""
    for sweep in sweeps:
        runs = _of_sweep(sweep)
        records.write_archive(RECORDS / f"{sweep}.tar.xz", runs.values())
        print(f"{sweep}: {len(runs)} runs")


def show_tuning(sweeps: list[str]) -> None:
    """Print the table of an archive."""
    runs = records.of_archives(pattern=f"{sweeps[0]}.tar.xz")
    print(tuning.table(runs.values()))


def rows(_: list[str]) -> None:
    """Write results/rows.yaml, and what is shown of it, from the archives."""
    every, runs = study.read(), records.of_archives()
    study.fill(every, runs)
    study.write(every)
    pages = {
        page: [row for row in every if row.get("page", "study") == page]
        for page in ("study", "exchange")
    }
    table.put(table.readme(every), table.README)
    table.put(table.table(pages["study"]), PAGES / "study.md")
    text = f"{exchange.summary(pages['exchange'], runs)}\n{table.table(pages['exchange'])}"
    table.put(text, PAGES / "exchange.md")
    table.draw({"points of test accuracy": pages["study"]}, PAGES / "study.png")
    if drawable := [row for row in pages["exchange"] if row["found"]]:
        panels = {"test accuracy, points": "accuracy", "training loss, %": "loss"}
        drawn = {title: [row for row in drawable if kind in row["row"]]
                 for title, kind in panels.items()}  # fmt: skip
        table.draw(drawn, PAGES / "exchange.png")
    print(text)


def anew(sweeps: list[str]) -> None:
    """Measure loss and accuracy with new statistics of BatchNorm for each run of a sweep."""
    torch.set_num_threads(1)
    for name in _of_sweep(sweeps[0]):
        print(name, ends.measure(RUNS / name), flush=True)


def _of_sweep(sweep: str) -> dict[str, Run]:
    """The finished runs of a sweep (a file of launch/sweep), by name."""
    sweeps = [str(path) for path in sorted((RUNS / "sweeps").glob(f"{sweep}-*"))]
    if not sweeps:
        sys.exit(f"error: no sweep {sweep} was run (make sweep SWEEP={sweep})")
    runs = records.of_folders(RUNS)
    return {folder.name: runs[folder.name] for folder in find(sweeps) if folder.name in runs}


COMMANDS = {
    "archive": (archive, 1), "tuning": (show_tuning, 1), "rows": (rows, 0), "anew": (anew, 1),
    "halved": (images.fashion_mnist_14, 0), "cifar100": (images.cifar100, 0),
    "reproduce": (reproduce, 0),
}  # fmt: skip


def main() -> None:
    """Run the typed command."""
    command, *words = sys.argv[1:] or ["--help"]
    if command in {"-h", "--help"}:
        print(__doc__)
    elif command not in COMMANDS:
        sys.exit(f"error: no command {command!r}\n{__doc__}")
    elif len(words) < COMMANDS[command][1]:
        sys.exit(f"error: {command} needs a sweep, a file of launch/sweep: study_methods")
    else:
        try:
            COMMANDS[command][0](words)
        except UserError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
