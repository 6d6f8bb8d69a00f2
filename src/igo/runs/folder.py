"""The folder of a run, named by the run's configuration.

It has config.yaml, plan.csv, metrics.jsonl (a record for each epoch), status.json and
checkpoint.pt. Every file is written whole or not at all.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from omegaconf import OmegaConf

from igo.config.schema import RULE, Config, result_settings
from igo.ground.errors import Busy, Outside, UserError, first_line
from igo.ground.files import Record, make_writable, sha256_of, write_atomically
from igo.method.plan import Plan
from igo.runs.records import Records

DIGESTED = ("config.yaml", "plan.csv", "metrics.jsonl")
LONGEST_LINE = 2**16  # bytes; every record is shorter
KEPT = ("wandb_id", "seconds", "began")  # entries of status.json that a new start keeps


def signature(config: Config) -> str:
    """Ten hexadecimal digits of everything that changes a run's result."""
    canonical = json.dumps({"rule": RULE, **result_settings(config)}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


class RunFolder:
    """Reads and writes the files of one run under ``runs_dir``."""

    def __init__(self, config: Config) -> None:
        self._config = config
        profile = config.schedule.profile
        name = f"{config.dataset.name}-{config.model.name}-{profile}-{signature(config)}"
        self.path = Path(config.runs_dir) / name.replace("/", "_")

    @cached_property
    def records(self) -> Records:
        """The writer of metrics.jsonl."""
        return Records(self.path)

    @property
    def checkpoint(self) -> Path:
        """The file of the newest checkpoint."""
        return self.path / "checkpoint.pt"

    @property
    def _status_file(self) -> Path:
        return self.path / "status.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and lock it: one process at a time works on a run.

        Raises:
            Busy: another process has the lock.
        """
        make_writable(self.path)
        with self.writing():
            lock = (self.path / ".lock").open("ab")
        with lock:
            self._take(lock)
            yield

    def _take(self, lock: IO[Any]) -> None:
        for attempt in range(10):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:  # held perhaps by a process that only reads, see state_of
                if attempt == 9:
                    raise Busy(f"{self.path} is being worked on by another process") from None
                time.sleep(0.05)
            except OSError as error:
                raise UserError(
                    f"{self.path} cannot be locked ({error.strerror or error}): its file system has"
                    " no flock; set runs_dir to another one"
                ) from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an OSError in the body into an error that says what to do."""
        try:
            yield
        except OSError as error:
            raise Outside(
                f"{self.path} cannot be written in ({error.strerror or error}); once it can, the"
                " same command continues after the last epoch that is complete there"
            ) from error

    def start_over(self) -> None:
        """Remove all that an earlier start left, except the lock."""
        # First what must not outlive the rest: "finished", and checkpoints without their records.
        for file in (self._status_file, *self.path.glob("*checkpoint.pt")):
            file.unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.name == ".lock":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def write_plan(self, plan: Plan) -> None:
        """Write config.yaml and plan.csv (floats in full; rates empty in the last row)."""
        write_atomically(self.path / "config.yaml", OmegaConf.to_yaml(asdict(self._config)))
        text = io.StringIO()
        table = plan.rows()
        rows = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        rows.writeheader()
        rows.writerows(table)
        write_atomically(self.path / "plan.csv", text.getvalue())

    def damaged(self) -> list[str]:
        """Files of a finished run that have changed since."""
        recorded, actual = self.status().get("sha256") or {}, digests(self.path)
        return [name for name in actual if actual[name] != recorded.get(name)]

    def status(self) -> Record:
        """The content of status.json, see ``read_status``; empty if it names another run."""
        status = read_status(self.path)
        return status if status.get("run", self.path.name) == self.path.name else {}

    def begin_status(self, **entries: object) -> None:
        """Write a new status.json with the KEPT entries of an earlier start."""
        previous = self.status()
        kept = {key: value for key, value in previous.items() if key in KEPT}
        if "command" in previous:
            kept.setdefault("began", previous["command"])
        (self.path / "error.txt").unlink(missing_ok=True)
        status = {"run": self.path.name, **entries, **kept}
        write_atomically(self._status_file, json.dumps(status, indent=2) + "\n")

    def update_status(self, **changes: object) -> None:
        """Change entries of status.json."""
        status = {**self.status(), **changes}
        write_atomically(self._status_file, json.dumps(status, indent=2) + "\n")

    def write_failure(self, error: BaseException, **entries: object) -> None:
        """Write an error into status.json, and the present traceback into error.txt.

        A run that was stopped from outside, such as by a full disk or a lack of memory, counts as
        interrupted: a sweep tries it again.
        """
        outside = isinstance(error, Outside | MemoryError)
        state = "interrupted" if outside else "failed"
        with self.writing():
            write_atomically(self.path / "error.txt", traceback.format_exc())
            self.update_status(state=state, error=first_line(error), **entries)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of DIGESTED; empty for a missing file."""
    digest_of = {}
    for name in DIGESTED:
        try:
            digest_of[name] = sha256_of(folder / name)
        except FileNotFoundError:
            digest_of[name] = ""
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{folder / name} cannot be read ({reason})") from None
    return digest_of


def check_unchanged(folder: Path, status: Record) -> None:
    """Raise a UserError if a file of a finished run differs from its digest in status.json."""
    recorded = status.get("sha256")
    if status.get("state") == "finished" and isinstance(recorded, dict):
        changed = [name for name, digest in digests(folder).items() if digest != recorded.get(name)]
        if changed:
            raise UserError(
                f"{', '.join(changed)}: not what the run wrote (SHA-256); the command that trained"
                " the run writes the file again"
            )


def read_status(folder: Path) -> Record:
    """The content of a run's status.json, empty where there is none or it cannot be read."""
    try:
        status = json.loads((folder / "status.json").read_bytes().decode())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def state_of(folder: Path) -> str:
    """The state of a run: ``new``, ``running``, ``interrupted``, ``failed`` or ``finished``.

    A run whose status.json says "running" while no process has its lock is interrupted: its process
    was killed.
    """
    state = str(read_status(folder).get("state", "new"))
    if state == "finished":
        return state
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "running"
    except OSError:  # no lock file: never started, or another machine's copy
        pass
    return "interrupted" if state == "running" else state


def last_record(folder: Path) -> Record:
    """The record of a run's last finished epoch, empty where there is none."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - LONGEST_LINE, 0))
            lines = file.read().decode(errors="replace").splitlines()
        return dict(json.loads(lines[-1])) if lines else {}
    except (OSError, ValueError, TypeError):
        return {}


def read_records(folder: Path) -> list[Record]:
    """The records in a run's metrics.jsonl, none where there is no such file."""
    check_unchanged(folder, read_status(folder))
    try:
        lines = (folder / "metrics.jsonl").read_bytes().decode().splitlines()
        return [json.loads(line) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'metrics.jsonl'} cannot be read ({error})") from None
