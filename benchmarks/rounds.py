"""All contenders in turns of some seconds: changes of the machine's speed meet all of them."""

import contextlib
import multiprocessing
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.cells import Cell
from benchmarks.ratios import Row
from benchmarks.worker import Turn, serve
from igo.ground.errors import UserError


class Worker:
    """The process of a contender."""

    def __init__(self, name: str) -> None:
        # The answer is what the process sends after a turn: "waiting", or after the last turn its
        # accuracy on the test set.
        self.name, self.answer = name, "waiting"
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        self._process = context.Process(target=serve, args=(name, other_end))
        self._process.start()
        other_end.close()

    def load(self, cell: Cell) -> None:
        """Prepare a cell in the process, and wait for that."""
        self._connection.send((cell.task, cell.trainings))
        self._received()

    def turn(self) -> Turn:
        """Train in the process; wait until it is ready for the next turn, or done."""
        self._connection.send("go")
        turn: Turn = self._received()
        self.answer = self._received()
        return turn

    def stop(self) -> None:
        """End the process."""
        if self._process.is_alive():
            with contextlib.suppress(OSError):
                self._connection.send(None)
            self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()

    def _received(self) -> Any:
        """What the process sends next; a process that has ended is an error."""
        try:
            return self._connection.recv()
        except EOFError:
            raise UserError(f"the contender {self.name} failed; its error is above") from None


class Workers(contextlib.ExitStack):
    """A process for each contender, started at its first cell."""

    def __init__(self) -> None:
        super().__init__()
        self._workers: dict[str, Worker] = {}

    def measure(self, cell: Cell, names: Sequence[str] = ()) -> tuple[list[Row], dict[str, float]]:
        """A row for each contender and turn of the measured rounds; and all test accuracies."""
        names = names or cell.contenders
        for name in names:
            if name not in self._workers:
                self._workers[name] = Worker(name)
                self.callback(self._workers[name].stop)
        workers = [self._workers[name] for name in names]
        for worker in workers:
            worker.load(cell)
        rows: list[Row] = []
        turns = (1 + cell.rounds) * cell.turns_per_round
        for turn in range(turns):
            start = turn % len(workers)  # Each contender begins in its turn.
            for worker in workers[start:] + workers[:start]:
                result = worker.turn()
                place = {"cell": cell.name, "round": turn // cell.turns_per_round}
                rows.append({**place, "contender": worker.name, **asdict(result)})
        rows.sort(key=lambda row: (row["round"], list(names).index(row["contender"])))
        accuracies = {worker.name: float(worker.answer) for worker in workers}
        return [row for row in rows if row["round"] > 0], accuracies
