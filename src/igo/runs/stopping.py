"""Signals end a run between two updates, so that its record is whole."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from igo.ranks import ALONE, Ranks

# HUP: the terminal is gone; USR2: SLURM, ahead of a time-out
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Stopped(SystemExit):
    """One of STOPPING arrived; the exit code is the shell's, 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        self.signal_name = signal.Signals(number).name
        super().__init__(128 + number)


def heard(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """The signals to act on: without SIGHUP if nohup made the process ignore it."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in numbers if not (number == signal.SIGHUP and ignored)]


@contextmanager
def signals(ranks: Ranks = ALONE) -> Iterator[Callable[[], None]]:
    """Turn STOPPING into Stopped at the next update; a second signal ends the run at once.

    All ranks stop at the same update, whichever rank got the signal.
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

    before = {number: signal.signal(number, note) for number in heard(STOPPING)}
    try:
        yield check_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:  # after the last update: the run is whole, and nothing more begins
        raise Stopped(arrived[0])
