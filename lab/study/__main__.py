"""`python -m lab.study COMMAND`, for the studies of results/.

seeds EXPERIMENT [FIRST N]  trains the runs of its rows in results/rows.yaml, seed by seed; start it
                  once for each core. FIRST N: with N other seeds, which it judges: seeds NAME 100 8
archive NAME…     writes the runs of sweeps, or of experiments' whole seeds, into results/records
tuning SWEEP      prints the η_1 that held-out images choose, from an archive
rows              writes results/rows.yaml, and the tables and figures, from the archives
anew SWEEP        measures the ends of a sweep's runs with new statistics of BatchNorm
fewer_updates     tunes and trains the seeds of results/fewer_updates.md; once for each core
fewer_updates_seconds  times its arms of 80 epochs, on an idle core, after the tuning
cause PART OF     the same for results/cause.md; process PART, from 0, of OF
one_pass, smoothing, fewer_updates_afterwards  tune and train the seeds of results/one_pass.md, of
                  results/smoothing.md, and what results/fewer_updates.md adds post hoc; once for
                  each core
path              trains the seeds of results/path.md; path_tuning and path_spread come first; once
                  for each core
cifar100 [FOLDER] writes data/cifar100.npz from class folders or the original files in FOLDER
ten FIRST N       writes data/ten/SEED.npz of N seeds: ten classes of CIFAR-100 at half its size
"""

from __future__ import annotations

import os
import sys

from igo.ground.errors import UserError
from igo.ground.files import write_atomically
from igo.runs.assemble import load_folder
from igo.runs.find import find
from lab.study import (
    afterwards,
    cause,
    cause_page,
    ends,
    fewer_updates,
    fewer_updates_page,
    images,
    methods,
    one_pass,
    one_pass_page,
    path,
    records,
    seeds,
    smoothing,
    smoothing_page,
    table,
)
from lab.study import rows as study
from lab.study.records import RECORDS, ROOT, RUNS, Run

PAGES = ROOT / "results"
STUDIES = {each.name: each for each in (one_pass.STUDY, smoothing.STUDY, afterwards.STUDY)}


def archive(names: list[str]) -> None:
    """Write the records of sweeps, or of the whole seeds of experiments, into results/records."""
    for name in names:
        file = RECORDS / f"{name}.tar.xz"
        if name in STUDIES:
            print(f"{name}: {STUDIES[name].archive()} runs")
            continue
        if name == "cause":
            print(f"{name}: {cause.archive()} runs")
            continue
        if name == fewer_updates.NAME:
            runs = fewer_updates.kept(fewer_updates.ended())
        elif planned := _rows_of(name):
            before = records.of_archives(pattern=file.name)
            runs = study.whole_seeds(planned, before | records.of_study())
            if lost := before.keys() - runs.keys():
                sys.exit(f"error: {file} has runs of no whole seed of the rows: {sorted(lost)}")
        else:
            runs = _of_sweep(name)
        if not runs:
            sys.exit(f"error: there is no whole seed of {name}")
        records.write_archive(file, runs.values())
        print(f"{name}: {len(runs)} runs")


def _rows_of(name: str) -> list[study.Row]:
    own = name == path.EXPERIMENT
    return path.rows(range(path.SEEDS)) if own else study.of_experiment(name)


def tuning(sweeps: list[str]) -> None:
    """Print the table of an archive."""
    print(methods.tuning(records.of_archives(pattern=f"{sweeps[0]}.tar.xz").values()))


def rows(_: list[str]) -> None:
    """Write results/rows.yaml, and what is shown of it, from the archives."""
    every, runs = study.read(), records.of_archives()
    study.fill(every, runs)
    study.write(every)
    text = methods.summary(every)
    table.put(text, PAGES / "cifar100.md")
    write_atomically(PAGES / "cifar100_means.csv", methods.means(every, runs))
    methods.draw(every, runs, PAGES / "cifar100.png")
    claims = path.fill(runs)
    table.put(path.summary(claims, runs), PAGES / "path.md")
    path.draw(claims, PAGES / "path.png")
    table.put(fewer_updates_page.readme(runs), table.README)
    table.put(fewer_updates_page.summary(runs), PAGES / "fewer_updates.md")
    write_atomically(PAGES / "fewer_updates_tuning.csv", fewer_updates_page.tuning(runs))
    fewer_updates_page.draw(runs, PAGES / "fewer_updates.png")
    of_cause = cause.archived()
    table.put(cause_page.summary(of_cause), PAGES / "cause.md")
    write_atomically(PAGES / "cause_estimates.csv", cause_page.estimates(of_cause))
    write_atomically(PAGES / "cause_means.csv", cause_page.means(of_cause))
    write_atomically(PAGES / "cause_stages.csv", cause_page.stages(of_cause))
    cause_page.draw(of_cause, PAGES / "cause.png")
    for page in (one_pass_page, smoothing_page):
        of_page = page.STUDY.archived()
        if shown := page.summary(of_page):
            table.put(shown, PAGES / f"{page.STUDY.name}.md")
            page.draw(of_page, PAGES / f"{page.STUDY.name}.png")
    if of_one_pass := one_pass.STUDY.archived():
        write_atomically(PAGES / "one_pass_tuning.csv", one_pass_page.tuning(of_one_pass))
    print(text)


def anew(sweeps: list[str]) -> None:
    """Measure loss and accuracy with new statistics of BatchNorm for each run of a sweep."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in _of_sweep(sweeps[0]):
        if not (RUNS / name / ends.FILE).is_file():
            print(name, ends.measure(RUNS / name, load_folder(RUNS / name)), flush=True)


def _of_sweep(sweep: str) -> dict[str, Run]:
    """The finished runs of a sweep (a file of launch/sweep), by name."""
    sweeps = [str(path) for path in sorted((RUNS / "sweeps").glob(f"{sweep}-*"))]
    if not sweeps:
        sys.exit(f"error: no sweep {sweep} was run (make sweep SWEEP={sweep})")
    runs = records.of_folders(RUNS)
    return {folder.name: runs[folder.name] for folder in find(sweeps) if folder.name in runs}


COMMANDS = {
    "seeds": (seeds.seeds, 1),
    "archive": (archive, 1), "tuning": (tuning, 1), "rows": (rows, 0), "anew": (anew, 1),
    "path": (path.run, 0), "path_tuning": (path.tune, 0), "path_spread": (path.spread, 0),
    "fewer_updates": (fewer_updates.run, 0),
    "fewer_updates_seconds": (fewer_updates_page.seconds, 0), "cause": (cause.run, 2),
    **{name: (each.run, 0) for name, each in STUDIES.items()},
    "ten": (images.ten, 2), "cifar100": (images.cifar100, 0),
}  # fmt: skip


def main() -> None:
    """Run the typed command."""
    command, *words = sys.argv[1:] or ["--help"]
    sys.argv = ["-m", "lab.study", *sys.argv[1:]]  # status.json has the command
    if command in {"-h", "--help"}:
        print(__doc__)
    elif command not in COMMANDS:
        sys.exit(f"error: no command {command!r}\n{__doc__}")
    elif len(words) < COMMANDS[command][1]:
        sys.exit(f"error: {command} needs what is beside it in python -m lab.study --help")
    else:
        try:
            COMMANDS[command][0](words)
        except UserError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
