"""`python -m lab.study COMMAND`, for the studies of results/.

NAME              tunes and trains the seeds of a study: path, fewer_updates, cause, cause_long,
                  one_pass, few_updates, smoothing, cifar100_many or cifar100_few; start it once
                  for each core
archive NAME…     writes the tuning and the whole seeds of studies into results/records
pages             writes the tables and figures of README.md and results/, from the archives
cifar100 [FOLDER] writes data/cifar100.npz from class folders or the original files in FOLDER
ten FIRST N       writes data/ten/SEED.npz of N seeds: ten classes of CIFAR-100 at half its size
"""

import sys

from igo.ground.errors import UserError
from lab.study import (
    cause,
    cause_page,
    cifar100,
    few_updates_page,
    fewer_updates_page,
    images,
    one_pass_page,
    path,
    smoothing_page,
    table,
)
from lab.study.design import ROOT, Study

PAGES = (
    cifar100.PAGE,
    path.PAGE,
    fewer_updates_page.PAGE,
    cause_page.PAGE,
    one_pass_page.PAGE,
    few_updates_page.PAGE,
    smoothing_page.PAGE,
)
MORE_STUDIES = (cifar100.FEW_STUDY, cause.LONG_STUDY)
STUDIES = {study.name: study for study in (*(page.study for page in PAGES), *MORE_STUDIES)}


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
    for page in PAGES:
        page.write()
    table.put(fewer_updates_page.readme(), ROOT / "README.md")


COMMANDS = {
    "archive": (archive, 1),
    "pages": (pages, 0),
    "ten": (images.ten, 2),
    "cifar100": (images.cifar100, 0),
}


def main() -> None:
    """Run the typed command."""
    command, *words = sys.argv[1:] or ["--help"]
    sys.argv = ["-m", "lab.study", *sys.argv[1:]]  # A run's status.json has it as its command.
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
