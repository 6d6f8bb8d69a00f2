"""From the settings of `igo table` to run folders, their table on disk, and the summary shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from igo.analysis.table import show, table
from igo.errors import ConfigError
from igo.files import output_folder
from igo.runs.find import find, is_run, named


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


def _output(output: object, names: Sequence[str]) -> Path:
    """The folder of the table: as set, else the one folder of runs, or of a sweep."""
    if output is None:
        path = Path(names[0])
        if len(names) == 1 and path.is_dir() and not is_run(path):
            return path
        allowed = "runs is not one folder of runs: name a folder for the table, as in output=tables"
        raise ConfigError("output", output, allowed)
    return output_folder(output)
