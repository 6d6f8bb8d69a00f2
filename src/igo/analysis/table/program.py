"""The program `igo table`: it writes the table and prints the summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from igo.analysis.table import show, table
from igo.ground.files import output_folder
from igo.runs.find import find, is_run, named


def run(composed: DictConfig) -> None:
    """Read the runs, write the table if there is a folder for it, print the summary."""
    names = named(composed.runs)
    folders = find(names)
    output = _output(composed.output, names)
    runs = table.read_runs(folders)
    paths = [] if output is None else table.write(runs, output)
    show.show(runs)
    if paths:
        show.say(f"wrote {', '.join(str(path) for path in paths)}")
    else:
        show.say("not written: runs is not one folder of runs (output=tables writes it)")


def _output(output: object, names: Sequence[str]) -> Path | None:
    """The folder for the table: as set, else the one folder of runs or of a sweep in ``names``."""
    if output is not None:
        return output_folder(output)
    path = Path(names[0])
    return path if len(names) == 1 and path.is_dir() and not is_run(path) else None
