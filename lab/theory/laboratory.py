"""The list of studies, and the program that runs them and writes a results folder."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import polars as pl
from omegaconf import DictConfig, ListConfig
from rich.console import Console

from igo.config.load import split_off
from igo.ground.errors import ConfigError, nearest
from igo.ground.files import output_folder, write_atomically
from lab.theory.row import Settings, Study

STUDIES = (
    "smoothing",
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
    "assumptions",
)


def run(composed: DictConfig) -> None:
    """Check the settings, run the studies, and print the place of the results.

    Raises:
        ConfigError: a setting is invalid; it is raised before any work starts.
    """
    console = Console(highlight=False)
    settings, rest = split_off(composed, Settings)
    names = chosen_studies(list(rest.study) if isinstance(rest.study, ListConfig) else rest.study)
    settings = replace(settings, output=output_folder(str(settings.output)))
    seconds = run_studies(names, settings, console.print)
    console.print(f"{seconds:.0f} s, results in {settings.output}/README.md")


def chosen_studies(study: str | Sequence[str] | None) -> list[str]:
    """Return the named studies in order; `all` is every study.

    Raises:
        ConfigError: a name is unknown, or there is no name.
    """
    names = [study] if isinstance(study, str) else list(study or [])
    if names == ["all"]:
        return list(STUDIES)
    for name in names or [""]:
        if name not in STUDIES:
            allowed = f"it must be all, or of {', '.join(STUDIES)}.{nearest(str(name), STUDIES)}"
            raise ConfigError("study", name or "[]", allowed)
    return [name for name in STUDIES if name in names]


def load(name: str) -> Study:
    """Return a study by name."""
    study: Study = import_module(f"lab.theory.studies.{name}").STUDY
    return study


def read_frames(folder: Path, names: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Return the frames of these names that the folder has."""
    return {
        name: pl.read_csv(folder / f"{name}.csv", infer_schema_length=None)
        for name in names
        if (folder / f"{name}.csv").exists()
    }


def run_studies(names: Sequence[str], settings: Settings, announce: Callable[[str], None]) -> float:
    """Run the studies into `settings.output` and write its page; return the seconds.

    `workers` studies run at a time. The page has the rows of every study whose tables are in the
    folder; earlier runs may have written them.
    """
    from lab.theory import page

    began = time.perf_counter()
    settings.output.mkdir(parents=True, exist_ok=True)
    for done, (name, seconds) in enumerate(_measured(names, settings), 1):
        announce(f"{name}: {seconds:.0f} s ({done}/{len(names)})")
    studies = {name: load(name) for name in STUDIES}
    frames = read_frames(settings.output, [f for s in studies.values() for f in s.frames])
    page.write(settings.output, studies, frames)
    return time.perf_counter() - began


def _measured(names: Sequence[str], settings: Settings) -> Iterator[tuple[str, float]]:
    # a forked process would share PyTorch's state
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.workers, context) as pool:
        running = {pool.submit(run_study, name, settings): name for name in names}
        for future in as_completed(running):
            yield running[future], future.result()


def run_study(name: str, settings: Settings) -> float:
    """Measure, write the tables, and draw the figures from the files; return the seconds."""
    from lab.theory.studies import style

    began = time.perf_counter()
    study = load(name)
    for table, data in study.measure(settings).items():
        write_atomically(settings.output / f"{table}.csv", data.write_csv())
    frames = read_frames(settings.output, study.frames)
    for picture, draw in study.figures.items():
        style.save(draw(frames), settings.output / picture)
    return time.perf_counter() - began
