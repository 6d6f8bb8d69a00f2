"""Run folders by what a person names: folders, sweeps, globs, or lists of these."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from omegaconf import ListConfig

from igo.errors import ConfigError
from igo.runs.manifest import read_manifest

MANIFEST = "sweep.json"  # in the folder of a sweep, see manifest
FILES = ("config.yaml", "status.json", "metrics.jsonl", "plan.csv")  # of a run, in part or whole
NO_RUNS = ("wandb", "sweeps")  # folders beside run folders


def named(runs: object) -> list[str]:
    """What the setting ``runs`` names: one folder or glob, or a list of them."""
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
    if (path / MANIFEST).is_file():
        return _runs_of_sweep(path / MANIFEST)
    inside = [
        one for one in path.iterdir()
        if one.is_dir() and one.name not in NO_RUNS and not one.name.startswith(".")
    ]  # fmt: skip
    return inside if any(is_run(one) for one in inside) else [path]


def _runs_of_sweep(manifest: Path) -> list[Path]:
    """The run folders that RUNS_DIR/sweeps/NAME/sweep.json names, whether they are there yet."""
    return [manifest.parents[2] / entry.run for entry in read_manifest(manifest).runs]


def is_run(folder: Path) -> bool:
    """Whether a folder holds any file of a run's record."""
    return any((folder / name).is_file() for name in FILES)
