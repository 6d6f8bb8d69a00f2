"""The list of studies, and the program that runs them and writes a results folder with its page."""

import multiprocessing
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import polars as pl

from igo.ground.files import write_atomically
from lab.theory.row import VERDICTS, Look, Seen, Study, frame

STUDIES = (  # the page is in the order of verdicts, and then in this
    "identity",
    "noise",
    "nice",
    "convexity",
    "movement",
    "decay_rates",
    "explicit",
    "implicit",
    "escape",
    "own_noise",
    "tails",
    "assumptions",
)
HEAD = Path(__file__).with_name("page.md")
RESULTS = Path(__file__).parents[2] / "results" / "theory"


def run(names: Sequence[str], output: Path = RESULTS, seed: int = 0) -> None:
    """Run these studies, two at a time, and write the page of the results folder."""
    start = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # More would wait for one another.
    # A forked process would share PyTorch's state.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run_study, name, output, seed): name for name in names}
        for number, future in enumerate(as_completed(futures), 1):
            print(f"{futures[future]}: {future.result():.0f} s ({number}/{len(names)})", flush=True)
    write_page(output, output)
    print(f"{time.perf_counter() - start:.0f} s, results in {output}/README.md")


def load(name: str) -> ModuleType:
    """Return the module of a study."""
    return import_module(f"lab.theory.studies.{name}")


def read_frames(folder: Path) -> dict[str, pl.DataFrame]:
    """Return the tables of a results folder by name."""
    return {path.stem: pl.read_csv(path, infer_schema_length=None) for path in folder.glob("*.csv")}


def run_study(name: str, output: Path, seed: int) -> float:
    """Measure, and write the tables; return the seconds."""
    start, module = time.perf_counter(), load(name)
    for table, records in zip(module.STUDY.frames, module.measure(seed), strict=True):
        write_atomically(output / f"{table}.csv", frame(records).write_csv())
    return time.perf_counter() - start


class Row(NamedTuple):
    """A statement of the page: its study, its place in the source, and what was seen."""

    study_name: str
    source: str
    look: Look
    seen: Seen

    def entry(self, number: int) -> str:
        """The row's lines on the page: the statement, the number that decides, how it was run."""
        text = " ".join(str(self.look.__doc__).split())
        statement = re.sub(r"([][*])", r"\\\1", text)  # a link's text
        check, ran, note = self.seen.deciding, self.seen.ran, self.seen.note
        return (
            f"{number}. [{statement}](../../lab/theory/studies/{self.study_name}.py)"
            f" ({self.source})\\\n   {check.quantity}: **{check.number}** ({check.asked})."
            f" {ran[0].upper()}{ran[1:]}.{f' {note}.' if note else ''}"
        )


def write_page(tables: Path, folder: Path) -> None:
    """Write README.md and checks.csv into the folder: the rows of all studies that have tables.

    Rows are in the order of verdicts, and numbered in it.
    """
    frames = read_frames(tables)
    rows: list[Row] = []
    for name in STUDIES:
        study: Study = load(name).STUDY
        if {*study.frames} <= frames.keys():
            rows += [Row(name, source, look, look(frames)) for source, look in study.rows]
    rows.sort(key=lambda row: VERDICTS.index(row.seen.verdict))
    entries, checks = {verdict: list[str]() for verdict in VERDICTS}, []
    for number, row in enumerate(rows, 1):
        seen = row.seen
        entries[seen.verdict].append(row.entry(number))
        for kind, of_kind in (("part", seen.parts), ("control", seen.controls)):
            checks += [
                {
                    "row": number,
                    "name": row.look.__name__,
                    "verdict": seen.verdict,
                    "kind": kind,
                    "number": check.quantity,
                    "found": check.number,
                    "asked": check.asked,
                    "holds": check.holds,
                }
                for check in of_kind
            ]
    counts = ", ".join(f"{verdict} {len(found)}" for verdict, found in entries.items())
    lines = [HEAD.read_text().format(counts=f"{len(rows)} statements: {counts}.")]
    for verdict, found in entries.items():
        lines += [f"## {verdict.capitalize()}", "", *found, ""] if found else []
    write_atomically(folder / "README.md", "\n".join(lines))
    write_atomically(folder / "checks.csv", pl.DataFrame(checks).write_csv())
