"""The folder of a run, named by the run's configuration.

It has config.yaml, plan.csv, metrics.jsonl (a record for each epoch), status.json and
checkpoint.pt. Every file is written whole or not at all.
"""

import csv
import fcntl
import io
import json
import math
import os
import re
import shutil
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from omegaconf import OmegaConf

from igo.config.schema import Config
from igo.ground import files
from igo.ground.errors import Busy, Damaged, Outside, UserError, first_line
from igo.ground.files import (
    Record,
    damaged,
    opened,
    read_bytes,
    read_json,
    seal_of,
    write_atomically,
    write_json,
)
from igo.plans.plan import Plan
from igo.runs.stopping import Stopped

RECORDS = "metrics.jsonl"
SEALED = ("config.yaml", "plan.csv", RECORDS)  # status.json has their seals, and its own

_locks: set[IO[Any]] = set()  # This process has the open lock of the run that it works on.
# A forked worker would keep the lock for as long as it lives on after a SIGKILL of the run.
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _locks])


class RunFolder:
    """Reads and writes the files of one run. While it is locked, its copy of status.json is the
    truth.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = self.path / "checkpoint.pt"
        self._status_file = self.path / "status.json"
        self._held = False
        self._status: Record | None = None  # It is kept while the folder is held.
        self._lines: list[str] = []  # Those of RECORDS that this process wrote
        self._seals: Record = {}  # Those of the files that this process wrote

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and lock it: one process at a time works on a run.

        Raises:
            Busy: another process has the lock.
        """
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = opened(self.path / ".lock", "ab")
        with lock:
            with self.writing():
                self._take(lock)
            _locks.add(lock)
            self._held = True
            try:
                yield
            finally:
                self._held, self._status = False, None
                _locks.remove(lock)

    def _take(self, lock: IO[Any]) -> None:
        """Lock the file for this process."""
        for _ in range(10):  # A process that only looks has it for a moment, see _is_locked.
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.05)
        raise Busy(f"{self.path} is being worked on by another process")

    def writing(self) -> AbstractContextManager[None]:
        """Turn an OSError in the body into an error that says what to do."""
        return files.writing("runs_dir", self.path)

    def start_over(self) -> None:
        """Remove all that an earlier start left, except the lock."""
        if self.path.is_symlink():
            raise UserError(
                f"{self.path} is a link, and fresh=true would remove what it leads to; remove the"
                " link first"
            )
        # "finished", and a checkpoint without its records, must not outlive the rest.
        for file in (self._status_file, self.checkpoint):
            file.unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != ".lock":
                entry.unlink()
        self._status = {}

    def write_plan(self, config: Config, plan: Plan) -> None:
        """Write config.yaml and plan.csv (floats in full; rates empty in the last row)."""
        self._write("config.yaml", OmegaConf.to_yaml(asdict(config)))
        text = io.StringIO()
        table = plan.table()
        rows = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        rows.writeheader()
        rows.writerows(table)
        self._write("plan.csv", text.getvalue())

    def write_records(self, records: Sequence[Record]) -> None:
        """Make metrics.jsonl hold these records. Those that it held before must be the first.

        Then status.json gets the seals of all files. A process that is killed in between leaves
        records that are not sealed, and that nobody reads.
        """
        # Thousands of epochs take longer to turn into JSON than to write.
        self._lines += [_line(record) for record in records[len(self._lines) :]]
        self._write(RECORDS, "".join(self._lines))
        self.update_status(epochs=len(self._lines), seals=self._seals)

    def _write(self, name: str, text: str) -> None:
        """Write a file of SEALED, and keep its seal for status.json."""
        write_atomically(self.path / name, text)
        self._seals[name] = seal_of(text.encode())

    def status(self) -> Record:
        """See ``read_status``; of the sealed files the records alone are checked.

        A run that goes on writes config.yaml and plan.csv anew. While held it is read once.
        """
        if self._status is not None:
            return self._status
        status = read_status(self.path, [RECORDS])
        if self._held:
            self._status = status
        return status

    def begin_status(self, **entries: object) -> None:
        """Write a new status.json, without seals. It keeps the W&B run of an earlier start."""
        earlier = self.status()
        (self.path / "error.txt").unlink(missing_ok=True)
        self._status = {"run": self.path.name}
        if "wandb_id" in earlier:
            self._status["wandb_id"] = earlier["wandb_id"]
        self.update_status(**entries)

    def update_status(self, **changes: object) -> None:
        """Change entries of status.json."""
        status = {**self.status(), **changes}
        write_json(self._status_file, status)
        self._status = status if self._held else None

    def write_failure(self, error: BaseException, **entries: object) -> None:
        """Write into status.json what ended the run, and an error's traceback into error.txt.

        A run that was stopped from outside, such as by a signal, a full disk, a closed pipe or a
        lack of memory, counts as interrupted: a sweep tries it again.
        """
        with self.writing():
            if isinstance(error, Stopped):
                self.update_status(state="interrupted", signal=error.signal_name, **entries)
                return
            is_outside = isinstance(error, Outside | MemoryError | OSError | SystemExit)
            state = "interrupted" if is_outside else "failed"
            write_atomically(self.path / "error.txt", traceback.format_exc())
            if isinstance(error, SystemExit):  # rich exits when its pipe is closed.
                error = error.__context__ or error
            self.update_status(state=state, error=first_line(error), **entries)


def _line(record: Record) -> str:
    """A record as a line of JSON, with null for NaN and infinity, which JSON does not have."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return json.dumps(plain, allow_nan=False) + "\n"


def _lines_of(file: Path) -> list[bytes]:
    """The lines with their ends; none where there is no file."""
    return read_bytes(file).splitlines(keepends=True) if file.exists() else []


def read_status(folder: Path, names: Collection[str] = SEALED) -> Record:
    """The content of a run's status.json, empty where there is none.

    Whoever reads a run begins here: its files of these names must be as it wrote them. Of
    metrics.jsonl that holds for the first ``epochs`` lines. One can do without config.yaml and
    plan.csv. A copy of a run's folder, such as a backup, may have any name but another run's.

    Raises:
        Damaged: a file is not as sealed, or all are another run's.
    """
    status = read_json(folder / "status.json")
    run = status.get("run") or folder.name
    if run != folder.name and re.search("-[0-9a-f]{10}$", folder.name):
        raise Damaged(f"{folder / 'status.json'} is of another run, {run}")
    seals = status.get("seals") or {}
    for name in filter(seals.get, names):
        file = folder / name
        lines = _lines_of(file)
        if name == RECORDS:
            lines = lines[: status.get("epochs")]
        elif not file.exists():
            continue
        if seal_of(b"".join(lines)) != seals[name]:
            raise Damaged(f"{file} is damaged or missing: it is not what {run} wrote")
    return status


def state_of(folder: Path) -> str:
    """The state of a run: new, running, interrupted, failed, finished; damaged: see read_status.

    A run whose status.json says "running" while no process has its lock is interrupted: its process
    was killed.
    """
    try:
        state = str(read_status(folder, [RECORDS]).get("state") or "new")
        if state == "finished":
            read_status(folder)  # All of its files must be as it wrote them.
            return state
    except (Damaged, Outside):
        return "damaged"
    if _is_locked(folder):
        return "running"
    return "interrupted" if state == "running" else state


def _is_locked(folder: Path) -> bool:
    """Whether a process works on the run."""
    try:
        with opened(folder / ".lock") as lock:
            # Shared: two that only look do not take each other for the run.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # A copy has no lock, or it is another user's.
        pass
    return False


def epochs_done(folder: Path) -> int:
    """How many epochs a run has recorded; 0 where its record cannot be read."""
    with suppress(UserError):
        return read_status(folder).get("epochs") or 0
    return 0


def read_records(folder: Path, until: int | None = None) -> list[Record]:
    """The records in a run's metrics.jsonl, without a torn line; none if there is no such file.

    They are numbers and null, of the epochs from 1 on; ``read_status`` has compared them with their
    seal. With ``until``, an epoch, all up to it must be there; later ones, which are trained again,
    are left out. Of a run that has not finished only ``epochs`` of its status are sealed.
    """
    file = folder / RECORDS
    with damaged(file):
        # A last line without its end was torn by a full disk or SIGKILL.
        lines = [line for line in _lines_of(file) if line.endswith(b"\n")]
        records: list[Record] = [json.loads(line) for line in lines[:until]]
        epochs = [record["epoch"] for record in records]
    last_epoch = len(records) if until is None else until
    if epochs != list(range(1, last_epoch + 1)):
        raise Damaged(f"{file} is damaged or missing: it has not the epochs 1 to {last_epoch}")
    return records


def read_plan(folder: Path) -> list[dict[str, float | None]]:
    """The rows of a run's plan.csv, one at least."""
    file = folder / "plan.csv"
    with damaged(file):
        rows = csv.DictReader(read_bytes(file).decode().splitlines())
        plan = [{key: float(cell) if cell else None for key, cell in row.items()} for row in rows]
        if not plan:
            raise ValueError("it has no stage")
    return plan
