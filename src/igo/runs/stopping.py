"""Signals end a run between two updates, so that its record is whole."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from igo.ground.errors import Outside
from igo.ground.ranks import ALONE, Ranks

# HUP: the terminal was closed; USR2: SLURM, before a time-out
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Stopped(SystemExit):
    """One of STOPPING arrived; the exit code is the shell's, 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        self.signal_name = signal.Signals(number).name
        super().__init__(128 + number)


@contextmanager
def handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, object], None]
) -> Iterator[None]:
    """Call a handler for these signals, but not for a SIGHUP that nohup made the process ignore."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    acted_on = [number for number in numbers if not (number == signal.SIGHUP and ignored)]
    previous = {number: signal.signal(number, handler) for number in acted_on}
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


class Signals:
    """Those of STOPPING that have arrived. Calling it turns them into Stopped, at an update."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self.arrived: list[int] = []

    def note(self, number: int, _frame: object) -> None:
        """Called when a signal arrives; a second one ends the run at once."""
        self.arrived.append(number)
        if len(self.arrived) > 1:
            raise Stopped(number)

    def __call__(self) -> None:
        """Raise Stopped on all ranks at the same update, whichever rank got the signal."""
        number = self._ranks.largest(self.arrived[0] if self.arrived else 0)
        if number:
            raise Stopped(number)

    @contextmanager
    def explain(self) -> Iterator[None]:
        """Raise Stopped for what a signal has caused, as where the workers got it too."""
        try:
            yield
        except Outside:
            if not self.arrived:
                raise
            raise Stopped(self.arrived[0]) from None


@contextmanager
def signals(ranks: Ranks = ALONE) -> Iterator[Signals]:
    """Note STOPPING in the body."""
    noted = Signals(ranks)
    with handled(STOPPING, noted.note):
        yield noted
    if noted.arrived:  # after the last update: the run has finished, and no other run begins
        raise Stopped(noted.arrived[0])
