"""`python -m lab.study COMMAND`, for the studies of results/.

NAME              tunes and trains the seeds of a study: path, fewer_updates,
                  fewer_updates_afterwards, cause, cause_long, one_pass, few_updates,
                  smoothing, cifar100_many or cifar100_few; start it once for each core
archive NAME…     writes the tuning and the whole seeds of studies into results/records
pages             writes the tables and figures of README.md and results/, from the archives
cifar100 [FOLDER] writes data/cifar100.npz from class folders or the original files in FOLDER
ten FIRST N       writes data/ten/SEED.npz of N seeds: ten classes of CIFAR-100 at half its size
"""

from __future__ import annotations

import sys

from igo.ground.errors import UserError
from igo.ground.files import write_atomically
from lab.study import (
    afterwards,
    cause,
    cause_page,
    cifar100,
    few_updates_page,
    fewer_updates,
    fewer_updates_page,
    images,
    one_pass_page,
    path,
    smoothing_page,
    table,
)
from lab.study.design import ROOT, Study

RESULTS = ROOT / "results"
PAGES = {
    "cifar100": cifar100,
    "path": path,
    "fewer_updates": fewer_updates_page,
    "cause": cause_page,
    "one_pass": one_pass_page,
    "few_updates": few_updates_page,
    "smoothing": smoothing_page,
}
MORE_STUDIES = (cifar100.FEW_STUDY, afterwards.STUDY, cause.LONG_STUDY)
STUDIES: dict[str, Study] = {
    study.name: study for study in (*(page.STUDY for page in PAGES.values()), *MORE_STUDIES)
}


def study(name: str) -> Study:
    """The study of this name."""
    if name not in STUDIES:
        sys.exit(f"error: no study {name!r}: there are {', '.join(STUDIES)}")
    return STUDIES[name]


def archive(names: list[str]) -> None:
    """Write the records of studies into results/records."""
    for name in names:
        print(f"{name}: {study(name).archive()} runs")


def pages(_: list[str]) -> None:
    """Write what is shown of the archives."""
    for name, page in PAGES.items():
        records = page.STUDY.archived()
        if text := page.summary(records):
            table.put(text, RESULTS / f"{name}.md")
            page.draw(records, RESULTS / f"{name}.png")
        for file, function in page.TABLES.items() if records else ():
            write_atomically(RESULTS / file, function(records))
    table.put(fewer_updates_page.readme(fewer_updates.STUDY.archived()), ROOT / "README.md")


COMMANDS = {
    "archive": (archive, 1),
    "pages": (pages, 0),
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
    function, words_needed = COMMANDS.get(command) or (study(command).run, 0)
    if len(words) < words_needed:
        sys.exit(f"error: {command} needs what is beside it in python -m lab.study --help")
    try:
        function(words)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
