"""From the settings of src/table.py to run folders, their table on disk, and the summary shown."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from igo.analysis.table import show, table
from igo.analysis.table.record import is_run
from igo.errors import ConfigError
from igo.sweep.manifest import read_book

BOOK = "sweep.json"  # in the folder of a sweep, see igo.sweep.manifest
NO_RUNS = ("wandb", "sweeps")  # folders beside run folders


def run(composed: DictConfig) -> None:
    """Read the runs, write the table, print the summary and where the table is.

    Raises:
        ConfigError: naming the setting, such as a folder without runs.
    """
    names = named(composed.runs)
    folders = find(names)
    output = _output(composed.output, names)
    runs = table.read_runs(folders)
    paths = table.write(runs, output)
    show.show(runs)
    show.say(f"wrote {', '.join(str(path) for path in paths)}")


def named(runs: object) -> list[str]:
    """What the setting ``runs`` names: one folder or glob, or a list of them.

    Raises:
        ConfigError: it is something else.
    """
    given = list(runs) if isinstance(runs, list | ListConfig) else [runs]
    names = [name for name in given if isinstance(name, str) and name]
    if not names or len(names) < len(given):
        raise ConfigError("runs", runs, "it must be a folder, or a list of folders")
    return names


def find(names: Sequence[str]) -> list[Path]:
    """The run folders that folders and globs stand for, each once, sorted.

    A folder with a run's files is a run; that of a sweep stands for its runs. Of any other all
    folders in it are taken, NO_RUNS and hidden ones aside, if one of them is a run: the rest may be
    runs that were damaged.

    Raises:
        ConfigError: a name stands for nothing, or for no run.
    """
    found: dict[Path, Path] = {}
    for name in names:
        folders = [one for path in _paths(name) for one in _runs_of(path)]
        if not any(is_run(folder) for folder in folders):
            raise ConfigError("runs", name, "it holds no runs (folders with a config.yaml)")
        found |= {folder.resolve(): folder for folder in folders}
    return sorted(found.values())


def _paths(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return [path]
    if path.exists():
        raise ConfigError("runs", name, "it is a file; it must be a folder of runs")
    matches = [Path(one) for one in glob.glob(name)]  # noqa: PTH207 (it takes absolute patterns)
    matches = [one for one in matches if one.is_dir()]
    if not matches:
        raise ConfigError("runs", name, "there is no such folder")
    return matches


def _runs_of(path: Path) -> list[Path]:
    if is_run(path):
        return [path]
    if (path / BOOK).is_file():
        return _runs_of_sweep(path / BOOK)
    inside = [
        one for one in path.iterdir()
        if one.is_dir() and one.name not in NO_RUNS and not one.name.startswith(".")
    ]  # fmt: skip
    return inside if any(is_run(one) for one in inside) else [path]


def _runs_of_sweep(book: Path) -> list[Path]:
    """The run folders that RUNS_DIR/sweeps/NAME/sweep.json names, whether they are there yet."""
    return [book.parents[2] / entry.run for entry in read_book(book).runs]


def _output(output: object, names: Sequence[str]) -> Path:
    """The folder of the table: as set, else the one folder of runs, or of a sweep."""
    if output is None:
        path = Path(names[0])
        if len(names) == 1 and path.is_dir() and not is_run(path):
            return path
        allowed = "runs is not one folder of runs: name a folder for the table, as in output=tables"
        raise ConfigError("output", output, allowed)
    if not isinstance(output, str) or not output or Path(output).is_file():
        raise ConfigError("output", output, "it must be the name of a folder")
    return Path(output)
