"""Signals that end a run between two updates, so that its record says how it ended."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from igo.ranks import ALONE, Ranks

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)  # USR2: SLURM, ahead of a time-out


class Stopped(SystemExit):
    """One of STOPPING arrived; the exit code is the shell's, 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        self.signal_name = signal.Signals(number).name
        super().__init__(128 + number)


@contextmanager
def signals(ranks: Ranks = ALONE) -> Iterator[Callable[[], None]]:
    """Turn STOPPING into Stopped at the next update; a second signal ends the run at once.

    It is the same update on all ranks, whichever of them the signal reached.
    """
    arrived: list[int] = []
    updates = itertools.count()

    def note(number: int, _frame: object) -> None:
        arrived.append(number)
        if len(arrived) > 1:
            raise Stopped(number)

    def check_stop() -> None:
        if next(updates) % ranks.pace:
            return
        number = ranks.largest(arrived[0] if arrived else 0)
        if number:
            raise Stopped(number)

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield check_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:  # after the last update: the run is whole, what would come next is not begun
        raise Stopped(arrived[0])
