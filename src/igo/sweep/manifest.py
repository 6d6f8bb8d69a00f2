"""The manifest of a sweep, RUNS_DIR/sweeps/NAME/sweep.json: its runs and their SLURM jobs.

The name of a sweep comes from its set of runs, as a run's name comes from its configuration.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from igo.ground.errors import UserError
from igo.ground.files import make_writable, write_atomically
from igo.runs.folder import state_of

FOLDER = "sweeps"  # under runs_dir


@dataclass(frozen=True)
class Entry:
    """One run of a sweep: its folder's name, its overrides, and its label among the runs."""

    run: str
    overrides: list[str]
    label: str
    epochs: int


@dataclass
class Manifest:
    """A sweep's record. ``queue`` holds the SLURM job of each run that was handed to SLURM."""

    name: str
    command: str
    started: str
    runs: list[Entry]
    queue: dict[str, str] = field(default_factory=dict)

    def folder(self, runs_dir: Path) -> Path:
        """The folder of the sweep itself."""
        return runs_dir / FOLDER / self.name

    def write(self, runs_dir: Path) -> None:
        """Write sweep.json, which makes the sweep the newest one."""
        folder = self.folder(runs_dir)
        make_writable(folder)
        write_atomically(folder / "sweep.json", json.dumps(asdict(self), indent=1) + "\n")

    def recorded(self, runs_dir: Path) -> dict[str, str]:
        """The state of each run by its own record, see ``igo.runs.folder.state_of``."""
        return {entry.run: state_of(runs_dir / entry.run) for entry in self.runs}


def read_manifest(path: Path) -> Manifest:
    """Read a sweep.json. The sweep has the name of its folder."""
    try:
        content = json.loads(path.read_bytes().decode())
        runs = [Entry(**entry) for entry in content.pop("runs")]
        return Manifest(runs=runs, **{**content, "name": path.parent.name})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not the record of a sweep ({error})") from None


def _started(path: Path) -> tuple[float, float]:
    """When a sweep was last started, by its record; a copied file has another time."""
    with contextlib.suppress(UserError, ValueError):
        started = datetime.strptime(read_manifest(path).started, "%Y-%m-%dT%H:%M:%S%z")
        return started.timestamp(), path.stat().st_mtime
    return 0.0, path.stat().st_mtime


def find_manifest(runs_dir: Path, name: str | None) -> Manifest:
    """The newest sweep, or the newest whose name begins with ``name``."""
    manifests = list((runs_dir / FOLDER).glob("*/sweep.json"))
    matching = [path for path in manifests if path.parent.name.startswith(name or "")]
    if not matching:
        known = ", ".join(sorted(path.parent.name for path in manifests))
        hint = f"there are {known}" if known else "no sweep was started there"
        which = f" whose name begins with {name}" if name else ""
        raise UserError(f"runs_dir={runs_dir} holds no sweep{which}; {hint}")
    return read_manifest(max(matching, key=_started))
