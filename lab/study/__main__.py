"""`python -m lab.study COMMAND`, for the studies of results/.

NAME              tunes and trains the seeds of a study, whose page is results/NAME.md: path,
                  fewer_updates, fewer_updates_afterwards, cause, cause_long, one_pass, smoothing,
                  cifar100_many or cifar100_few; start it once for each core
seeds NAME [FIRST N]  the same. FIRST N: with N other seeds, which it judges, for the rows of
                  results/rows.yaml: seeds cifar100_many 100 8
archive NAME…     writes the tuning and the whole seeds of studies into results/records
rows              writes results/rows.yaml, and the tables and figures, from the archives
cifar100 [FOLDER] writes data/cifar100.npz from class folders or the original files in FOLDER
ten FIRST N       writes data/ten/SEED.npz of N seeds: ten classes of CIFAR-100 at half its size
"""

from __future__ import annotations

import sys
from functools import cache

from igo.ground.errors import UserError
from igo.ground.files import write_atomically
from lab.study import (
    afterwards,
    cause,
    cause_page,
    fewer_updates,
    fewer_updates_page,
    images,
    methods,
    one_pass_page,
    path,
    smoothing_page,
    table,
)
from lab.study import rows as rows_of_file
from lab.study.design import ROOT, Study

RESULTS = ROOT / "results"
PAGES = (path, fewer_updates_page, cause_page, one_pass_page, smoothing_page)


@cache
def studies() -> dict[str, Study]:
    """All studies by name."""
    more_studies = (*(page.STUDY for page in PAGES), afterwards.STUDY, cause.LONG_STUDY)
    return rows_of_file.studies(rows_of_file.read()) | {study.name: study for study in more_studies}


def _study(name: str) -> Study:
    if name not in studies():
        sys.exit(f"error: no study {name!r}: there are {', '.join(studies())}")
    return studies()[name]


def seeds(words: list[str]) -> None:
    """Train the missing runs of a study; what is archived is done."""
    name, *numbers = words
    if not numbers:
        _study(name).run()
    elif len(numbers) == 2 and all(map(str.isdecimal, numbers)) and int(numbers[1]) > 1:
        rows_of_file.again(name, *map(int, numbers))
    else:
        sys.exit(f"error: FIRST N is {' '.join(numbers)}: two whole numbers, N at least 2")


def archive(names: list[str]) -> None:
    """Write the records of studies into results/records."""
    for name in names:
        print(f"{name}: {_study(name).archive()} runs")


def rows(_: list[str]) -> None:
    """Write results/rows.yaml, and what is shown of the archives."""
    all_rows = rows_of_file.read()
    runs = {
        name: run
        for study in rows_of_file.studies(all_rows).values()
        for name, run in study.archived().items()
    }
    rows_of_file.fill(all_rows, runs)
    rows_of_file.write(all_rows)
    text = methods.summary(all_rows)
    table.put(text, RESULTS / "cifar100.md")
    write_atomically(RESULTS / "cifar100_means.csv", methods.means(all_rows, runs))
    methods.draw(all_rows, runs, RESULTS / "cifar100.png")
    for page in PAGES:
        records, name = page.STUDY.archived(), page.STUDY.name
        if text_of_page := page.summary(records):
            table.put(text_of_page, RESULTS / f"{name}.md")
            page.draw(records, RESULTS / f"{name}.png")
        for file, function in page.TABLES.items() if records else ():
            write_atomically(RESULTS / file, function(records))
    readme = fewer_updates_page.readme(fewer_updates.STUDY.archived())
    table.put(readme, ROOT / "README.md")
    print(text)


COMMANDS = {
    "seeds": (seeds, 1),
    "archive": (archive, 1),
    "rows": (rows, 0),
    "ten": (images.ten, 2),
    "cifar100": (images.cifar100, 0),
}


def main() -> None:
    """Run the typed command."""
    command, *words = sys.argv[1:] or ["--help"]
    sys.argv = ["-m", "lab.study", *sys.argv[1:]]  # status.json has the command
    if command in {"-h", "--help"}:
        print(__doc__)
        return
    if command not in COMMANDS:
        command, words = "seeds", [command, *words]
    function, words_needed = COMMANDS[command]
    if len(words) < words_needed:
        sys.exit(f"error: {command} needs what is beside it in python -m lab.study --help")
    try:
        function(words)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
