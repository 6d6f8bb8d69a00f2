"""Run folders from what a person types: folders, sweeps, globs, or lists of these."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import ListConfig

from igo.ground.errors import Damaged, require
from igo.ground.files import read_json

LIST = "sweep.json"  # RUNS_DIR/FOLDER/NAME/sweep.json lists runs in RUNS_DIR.
FILES = ("config.yaml", "status.json", "metrics.jsonl", "plan.csv")  # A run has one of these.


def named(runs: Any) -> list[str]:
    """The folders and globs that the setting ``runs`` names: it is one name or a list of names.

    Raises:
        ConfigError: the setting is anything else, such as an empty list.
    """
    values = list(runs) if isinstance(runs, list | ListConfig) else [runs]
    are_names = bool(values) and all(isinstance(value, str) and value for value in values)
    require(are_names, "runs", runs, "it must be a folder, or a list of folders")
    return values


def find(names: Sequence[str]) -> list[Path]:
    """The run folders that folders and globs stand for, each once, sorted.

    A folder with any of a run's files is a run, and a folder with a list stands for the runs in it.
    Any other folder stands for the runs in it, except hidden ones.
    """
    unique: dict[Path, Path] = {}
    for name in names:
        # A name of a folder is no pattern, as it may have brackets. A pattern may be absolute,
        # which Path.glob does not take.
        paths = [name] if Path(name).is_dir() else glob.glob(name)  # noqa: PTH207
        require(bool(paths), "runs", name, "there is no such folder")
        folders = [folder for path in paths for folder in _runs_of(Path(path))]
        holds = "it holds no runs (folders with a config.yaml)"
        require(any(map(is_run, folders)), "runs", name, holds)
        # A glob and a list may name the same run, so runs are told apart by their real paths.
        unique |= {folder.resolve(): folder for folder in folders}
    return sorted(unique.values())


def _runs_of(path: Path) -> list[Path]:
    """The runs in a folder or in its list, or the folder itself if it is a run.

    A run of a list may have no folder yet.
    """
    if is_run(path):
        return [path]
    if (path / LIST).is_file():
        runs = read_json(path / LIST)["runs"]
        names = [Path(entry["run"]).name for entry in runs]
        if any("\0" in name or name in ("", "..") for name in names):
            raise Damaged(f"{path / LIST} is damaged (a run has no name)")
        runs_dir = path.resolve().parents[1]  # See LIST.
        return [runs_dir / name for name in names]
    return [*filter(is_run, path.glob("[!.]*"))]


def is_run(folder: Path) -> bool:
    """Whether a folder holds any file of a run's record."""
    return any((folder / name).is_file() for name in FILES)
