"""The list of studies, and the program that runs them and writes a results folder with its page."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import polars as pl
from omegaconf import DictConfig, ListConfig

from igo.config.load import split_off
from igo.ground.errors import ConfigError, nearest
from igo.ground.files import output_folder, write_atomically
from igo.ground.numbers import within
from lab.theory.row import VERDICTS, Study, frame

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


@dataclass(frozen=True)
class Settings:
    """The settings of `python -m lab.theory`; see theory.yaml."""

    output: Path
    seed: Annotated[int, within(0, 2**32)] = 0
    workers: Annotated[int, within(1, 1024)] = 2


def run(composed: DictConfig) -> None:
    """Run the chosen studies, `workers` at a time, and write the page of the results folder.

    Raises:
        ConfigError: a setting is invalid; it is raised before any work starts.
    """
    start = time.perf_counter()
    settings, rest = split_off(composed, Settings)
    names = chosen_studies(rest.study)
    settings = replace(settings, output=output_folder(str(settings.output)))
    settings.output.mkdir(parents=True, exist_ok=True)
    # A forked process would share PyTorch's state.
    with ProcessPoolExecutor(settings.workers, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(run_study, name, settings): name for name in names}
        for number, future in enumerate(as_completed(running), 1):
            print(f"{running[future]}: {future.result():.0f} s ({number}/{len(names)})", flush=True)
    write_page(settings.output, settings.output)
    print(f"{time.perf_counter() - start:.0f} s, results in {settings.output}/README.md")


def chosen_studies(study: str | ListConfig | None) -> list[str]:
    """Return the named studies in order; `all` is every study.

    Raises:
        ConfigError: a name is unknown, or there is no name.
    """
    names = [study] if isinstance(study, str) else list(study or [])
    if names == ["all"]:
        return list(STUDIES)
    for name in names or [""]:
        if name not in STUDIES:
            advice = f"it must be all, or of {', '.join(STUDIES)}.{nearest(str(name), STUDIES)}"
            raise ConfigError("study", name or "[]", advice)
    return [name for name in STUDIES if name in names]


def load(name: str) -> ModuleType:
    """Return the module of a study."""
    return import_module(f"lab.theory.studies.{name}")


def read_frames(folder: Path) -> dict[str, pl.DataFrame]:
    """Return the tables of a results folder by name."""
    return {path.stem: pl.read_csv(path, infer_schema_length=None) for path in folder.glob("*.csv")}


def run_study(name: str, settings: Settings) -> float:
    """Measure, write the tables, and draw the figures from the files; return the seconds."""
    start, module = time.perf_counter(), load(name)
    study: Study = module.STUDY
    for table, records in zip(study.frames, module.measure(settings.seed), strict=True):
        write_atomically(settings.output / f"{table}.csv", frame(records).write_csv())
    for picture, draw in study.figures.items():
        draw(read_frames(settings.output), settings.output / picture)
    return time.perf_counter() - start


def write_page(tables: Path, folder: Path) -> None:
    """Write README.md and checks.csv into the folder: the rows of all studies that have tables."""
    frames = read_frames(tables)
    studies: dict[str, Study] = {name: load(name).STUDY for name in STUDIES}
    shown_studies = {
        name: study for name, study in studies.items() if {*study.frames} <= frames.keys()
    }
    results = [
        (name, source, statement, statement(frames))
        for name, study in shown_studies.items()
        for source, statement in study.rows
    ]
    results.sort(key=lambda entry: VERDICTS.index(entry[-1].verdict))
    verdicts = [result.verdict for *_, result in results]
    counts = ", ".join(f"{verdict} {verdicts.count(verdict)}" for verdict in VERDICTS)
    table, notes, checks = [], [], []
    for number, (study, source, statement, result) in enumerate(results, 1):
        name, check = statement.__name__, result.deciding
        cells = [
            f'<a id="{name}"></a>[{number}](../../lab/theory/studies/{study}.py)',
            f"{_text(statement)} ({source})",
            f"**{result.verdict}**",
            f"{check.quantity}: {check.number} ({check.asked})",
        ]
        table.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        note = f" {result.note}." if result.note else ""
        notes.append(f"{number}. {result.ran[0].upper()}{result.ran[1:]}.{note}")
        checks += [
            {
                "row": number,
                "name": name,
                "verdict": result.verdict,
                "kind": kind,
                "number": check.quantity,
                "found": check.number,
                "asked": check.asked,
                "holds": check.holds,
            }
            for kind, of_kind in (("part", result.parts), ("control", result.controls))
            for check in of_kind
        ]
    figures = [
        f"\n![{_text(draw)}]({picture})"
        for study in shown_studies.values()
        for picture, draw in study.figures.items()
    ]
    head = HEAD.read_text().format(counts=f"{len(results)} statements: {counts}.")
    title = "## How each was run, and why it came out so"
    lines = [head + "\n".join(table), "", title, "", *notes, *figures, ""]
    write_atomically(folder / "README.md", "\n".join(lines))
    write_atomically(folder / "checks.csv", pl.DataFrame(checks).write_csv())


def _text(function: object) -> str:
    """The docstring, as one line."""
    return " ".join(str(function.__doc__).split())
