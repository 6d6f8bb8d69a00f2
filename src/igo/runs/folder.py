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
# A seal is the SHA-256 of a file's content. status.json has the seals of these files, and its own.
SEALED = ("config.yaml", "plan.csv", RECORDS)

_locks: set[IO[Any]] = set()  # the open lock files of the runs that this process holds
# A forked worker shares the run's lock, and may outlive a run that is killed. As long as a process
# has the lock file open, no other one can take the lock. So a worker closes the file at once.
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _locks])


class RunFolder:
    """Reads and writes the files of one run.

    A process holds the folder while it works on the run. It then reads status.json once, and what
    it remembers of that file is the truth, whatever becomes of the file meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        # What status.json holds; None while the folder is not held, and the file must be read.
        self._status: Record | None = None
        self._lines: list[str] = []  # the lines of RECORDS that this process wrote
        self._seals: Record = {}  # the seals of the files that this process wrote, by file name

    @contextmanager
    def held(self, *, fresh: bool = False) -> Iterator[None]:
        """Make the folder and lock it for the body: one process at a time works on a run.

        With ``fresh`` all that an earlier start left in the folder is removed first.

        Raises:
            Busy: another process has the lock.
            Damaged: a file is not as it was written; never with ``fresh``, which reads no file.
        """
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = opened(self.path / ".lock", "ab")
        with lock:
            with self.writing():
                self._take(lock)
                if fresh:
                    self._start_over()
            _locks.add(lock)
            try:
                self._status = {} if fresh else self.status()
                yield
            finally:
                self._status = None
                _locks.remove(lock)

    def _take(self, lock: IO[Any]) -> None:
        """Lock the file for this process, or raise Busy after half a second.

        A process that only looks whether the run is locked has the lock itself for a moment. So one
        try is not enough.
        """
        for _ in range(10):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.05)
        raise Busy(f"{self.path} is being worked on by another process")

    def writing(self) -> AbstractContextManager[None]:
        """Turn an OSError in the body, which writes into this folder, into one line with a cure."""
        return files.writing("runs_dir", self.path)

    def _start_over(self) -> None:
        """Remove all that an earlier start left, except the lock."""
        if self.path.is_symlink():
            raise UserError(
                f"{self.path} is a link, and fresh=true would remove what it leads to; remove the"
                " link first"
            )
        # The status and the checkpoint go first. If this process is killed midway, the other files
        # must neither count as a finished run, nor be continued from a checkpoint without records.
        for file in (self.path / "status.json", self.checkpoint):
            file.unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != ".lock":
                entry.unlink()

    def write_plan(self, config: Config, plan: Plan) -> None:
        """Write config.yaml, and plan.csv with its floats in full and null as an empty cell."""
        self._write("config.yaml", OmegaConf.to_yaml(asdict(config)))
        text = io.StringIO()
        table = plan.table()
        rows = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        rows.writeheader()
        rows.writerows(table)
        self._write("plan.csv", text.getvalue())

    def write_records(self, records: Sequence[Record]) -> None:
        """Make metrics.jsonl hold these records, of all epochs up to now.

        Then status.json gets the seals of all files. A process that is killed in between leaves
        records that are not sealed, and that nobody reads.
        """
        # The lines of earlier calls are kept, and only new records are turned into JSON: for
        # thousands of epochs that takes longer than to write the file.
        for record in records[len(self._lines) :]:
            entries = {  # JSON has no NaN and no infinity, so null takes their place.
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in record.items()
            }
            self._lines.append(json.dumps(entries) + "\n")
        self._write(RECORDS, "".join(self._lines))
        self.update_status(epochs=len(self._lines), seals=self._seals)

    def _write(self, name: str, text: str) -> None:
        """Write a file of SEALED, and keep its seal for ``write_records``."""
        write_atomically(self.path / name, text)
        self._seals[name] = seal_of(text.encode())

    def status(self) -> Record:
        """What status.json holds, see ``read_status``.

        Of the sealed files the records alone are checked: a run that goes on writes config.yaml and
        plan.csv anew.
        """
        return read_status(self.path, [RECORDS]) if self._status is None else self._status

    def begin_status(self, **entries: object) -> None:
        """Write a new status.json with these entries, for a start of the run.

        Of the entries of an earlier start the id of the W&B run alone is kept, because the rows of
        all starts go there. Without the seals nobody compares files that are now written anew.
        """
        earlier = self.status()
        (self.path / "error.txt").unlink(missing_ok=True)
        self._status = {"run": self.path.name}
        if "wandb_id" in earlier:
            self._status["wandb_id"] = earlier["wandb_id"]
        self.update_status(**entries)  # It writes the file.

    def update_status(self, **changes: object) -> None:
        """Change entries of status.json, and write the file."""
        status = {**self.status(), **changes}
        write_json(self.path / "status.json", status)
        if self._status is not None:  # The folder is held.
            self._status = status

    def write_failure(self, error: BaseException, **entries: object) -> None:
        """Write into status.json what ended the run, and an error's traceback into error.txt.

        A signal, a lack of memory, and an OSError, such as a full disk or a closed pipe, stop a run
        from outside. Such a run counts as interrupted, and a sweep tries it again. After any other
        error, which is the run's own, the run counts as failed.
        """
        with self.writing():
            if isinstance(error, Stopped):
                self.update_status(state="interrupted", signal=error.signal_name, **entries)
                return
            is_outside = isinstance(error, Outside | MemoryError | OSError | SystemExit)
            state = "interrupted" if is_outside else "failed"
            write_atomically(self.path / "error.txt", traceback.format_exc())
            if isinstance(error, SystemExit):
                # rich exits when its pipe is closed; the context is then the pipe's OSError.
                error = error.__context__ or error
            self.update_status(state=state, error=first_line(error), **entries)


def _lines_of(file: Path) -> list[bytes]:
    """A file's lines, each with its line end; none where there is no file."""
    return read_bytes(file).splitlines(keepends=True) if file.exists() else []


def read_status(folder: Path, names: Collection[str] = SEALED) -> Record:
    """The content of a run's status.json, empty where there is no such file.

    Whoever reads a run begins here. The files of these names are compared with the seals in
    status.json. Of metrics.jsonl the first ``epochs`` lines are sealed; lines after these are of
    epochs that are trained again. config.yaml and plan.csv may be missing.

    Raises:
        Damaged: a file is not as sealed, or the folder's name is another run's.
    """
    status = read_json(folder / "status.json")
    run = status.get("run") or folder.name
    # A copy of a run, such as a backup, may have any name that does not end as runs' names do.
    if run != folder.name and re.search("-[0-9a-f]{10}$", folder.name):
        raise Damaged(f"{folder / 'status.json'} is of another run, {run}")
    seals = status.get("seals") or {}
    for name in names:
        file = folder / name
        if name not in seals or (name != RECORDS and not file.exists()):
            continue
        sealed_lines = status.get("epochs") if name == RECORDS else None  # None = all lines
        if seal_of(b"".join(_lines_of(file)[:sealed_lines])) != seals[name]:
            raise Damaged(f"{file} is damaged or missing: it is not what {run} wrote")
    return status


def state_of(folder: Path) -> str:
    """The state of a run: new, running, interrupted, failed, finished or damaged.

    A run whose status.json says "running" while no process has its lock is interrupted: its process
    was killed. A run is damaged where ``read_status`` refuses its files. Of a run that has not
    finished only the records are compared: when the run goes on, it writes the other files anew.
    """
    try:
        state = str(read_status(folder, [RECORDS]).get("state", "new"))
        if state == "finished":
            read_status(folder)  # This checks all sealed files.
            return state
    except (Damaged, Outside):
        return "damaged"
    if _is_locked(folder):
        return "running"
    return "interrupted" if state == "running" else state


def _is_locked(folder: Path) -> bool:
    """Whether a process works on the run.

    False also where nobody can tell: the file .lock is missing, as in a copy of the folder, or is
    another user's.
    """
    try:
        with opened(folder / ".lock") as lock:
            # The lock is a shared one, so that two processes that look do not disturb each other.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def epochs_done(folder: Path) -> int:
    """How many epochs a run has recorded; 0 where its record cannot be read."""
    with suppress(UserError):
        return read_status(folder).get("epochs") or 0
    return 0


def read_records(folder: Path, until: int | None = None) -> list[Record]:
    """The records in a run's metrics.jsonl, one for each epoch from 1 on.

    Whether the file is as its run wrote it is not looked at: ``read_status``, which a reader calls
    first, compares the file with its seal.

    Args:
        folder: the run's. Without the file there are no records.
        until: the last epoch that is read; the records up to this epoch must be there. Later ones
            are of epochs that are trained again. None = all records.

    Raises:
        Damaged: a record is missing, or is no record.
    """
    file = folder / RECORDS
    with damaged(file):
        # A last line without a line end was torn by a full disk or SIGKILL, and does not count.
        lines = [line for line in _lines_of(file) if line.endswith(b"\n")]
        records: list[Record] = [json.loads(line) for line in lines[:until]]
        epochs = [record["epoch"] for record in records]
    last_epoch = len(records) if until is None else until
    if epochs != list(range(1, last_epoch + 1)):
        raise Damaged(f"{file} is damaged or missing: it has not the epochs 1 to {last_epoch}")
    return records


def read_plan(folder: Path) -> dict[str, list[float | None]]:
    """The columns of a run's plan.csv, by their names. An empty cell is None."""
    file = folder / "plan.csv"
    with damaged(file):
        names, *rows = csv.reader(read_bytes(file).decode().splitlines())
        columns = zip(names, *rows, strict=True)
        return {name: [float(cell) if cell else None for cell in cells] for name, *cells in columns}
