"""Questions (ii), (iv) and (vi): run the missing trainings, judge, and write the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from igo.ground.files import write_atomically
from lab.exponent import (
    methods,
    methods_page,
    momentum,
    momentum_page,
    sizes,
    stream,
    stream_page,
    trainings,
)
from lab.study.records import Run

OF = {
    "stream": stream.TRAININGS,
    "sizes": sizes.TRAININGS,
    "momentum": momentum.TRAININGS,
    "methods": methods.TRAININGS,
}
PAGES = {
    "stream": stream_page.text,
    "sizes": sizes.text,
    "momentum": momentum_page.text,
    "methods": methods_page.text,
}
AFTER = {"sizes": "train_loss", "methods": "annealed"}  # measured at the end of a question's runs


def run(question: str, seeds: range, folder: Path, stage: str, console: Console) -> None:
    """Run the missing trainings, judge the seeds that all arms have, and write the page.

    Raises:
        UserError: a run did not finish, or there are fewer than two whole seeds.
    """
    planned = OF[question]
    if stage == "judge":
        runs = trainings.recorded(planned.sweep)
    else:
        if planned.experiment in trainings.MADE:
            file, make = trainings.MADE[planned.experiment]
            if not file.is_file():
                make()
        runs = trainings.run_missing(planned, seeds)
        if question in AFTER:
            runs = trainings.measure(planned, seeds, AFTER[question])
    if stage != "runs":
        page = page_of(question, runs, seeds)
        folder.mkdir(parents=True, exist_ok=True)
        again = "_again" if seeds[0] else ""
        write_atomically(folder / f"{question}{again}.md", page)
        console.print(page.split("**")[1], markup=False)


def page_of(question: str, runs: Mapping[str, Run], seeds: Sequence[int]) -> str:
    """The page of the first seeds that all arms have.

    Raises:
        UserError: fewer than two seeds.
    """
    complete = OF[question].complete(runs, seeds)
    return PAGES[question](runs, complete)
