"""All contenders in turns of some seconds, so that the machine's own moods meet them alike."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any

from benchmarks.cells import Cell
from benchmarks.worker import Turn, serve
from igo.errors import UserError

Row = dict[str, Any]
CONTENDERS = ("plain", "lightning_trainer", "timm_pieces", "ours", "bare")


class Worker:
    """A contender's process, as seen from here."""

    def __init__(self, name: str) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(name, theirs))
        self._process.start()
        theirs.close()

    def load(self, cell: Cell) -> None:
        """Let it prepare a cell, and wait until it has."""
        self._connection.send(cell)
        self._expect("waiting")

    def turn(self) -> Turn:
        """Let it train an epoch, and wait until it has and is ready for the next one, or done."""
        self._connection.send("go")
        found = self._expect(Turn)
        self._expect("waiting", "done")
        return found

    def stop(self) -> None:
        """End the process."""
        if self._process.is_alive():
            with contextlib.suppress(OSError):
                self._connection.send(None)
            self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()

    def _expect(self, *wanted: object) -> Any:
        try:
            found = self._connection.recv()
        except EOFError:
            raise UserError(f"the contender {self.name} failed; its error is above") from None
        if found not in wanted and not any(type(found) is kind for kind in wanted):
            raise RuntimeError(f"{self.name} said {found!r}, not {wanted}")
        return found


class Workers:
    """One process for each contender, started when it is first needed, ended at the end."""

    def __init__(self) -> None:
        self._there: dict[str, Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        for worker in self._there.values():
            worker.stop()

    def measure(self, cell: Cell, names: Sequence[str]) -> list[Row]:
        """A row for each contender and turn of the measured rounds."""
        for name in names:
            if name not in self._there:
                self._there[name] = Worker(name)
        workers = [self._there[name] for name in names]
        for worker in workers:
            worker.load(cell)
        rows: list[Row] = []
        turns = (1 + cell.rounds) * cell.epochs_per_round
        for turn in range(turns):
            first = turn % len(workers)  # another one begins each time
            for worker in workers[first:] + workers[:first]:
                found = worker.turn()
                where = {"cell": cell.name, "round": turn // cell.epochs_per_round}
                rows.append({**where, "contender": worker.name, **asdict(found)})
        rows.sort(key=lambda row: (row["round"], list(names).index(row["contender"])))
        return [row for row in rows if row["round"] > 0]
