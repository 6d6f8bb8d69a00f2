"""Signals end a run between two updates, so that its record is whole."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from igo.ground.ranks import ALONE, Ranks

# HUP: the terminal was closed; USR2: SLURM, before a time-out
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Stopped(SystemExit):
    """One of STOPPING arrived; the exit code is the shell's, 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        self.signal_name = signal.Signals(number).name
        super().__init__(128 + number)


def stop(number: int, _frame: object) -> None:
    """The handler of a signal that ends what runs at once."""
    raise Stopped(number)


@contextmanager
def handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, object], None]
) -> Iterator[None]:
    """Call a handler for these signals, but not for a SIGHUP that nohup made the process ignore."""
    # A sweep or a test has handlers of its own, which come back after the run.
    previous = {
        number: signal.signal(number, handler)
        for number in numbers
        if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN)
    }
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


@contextmanager
def signals(ranks: Ranks = ALONE) -> Iterator[Callable[[], None]]:
    """Turn STOPPING into Stopped at the next update; a second signal ends the run at once.

    All ranks stop at the same update, whichever rank got the signal: each asks all at an update,
    and reads the answer at the next one, so that none waits for it. With several ranks a third
    signal ends a rank at once, not the second: `timeout` sends one twice.
    """
    numbers: list[int] = []  # the signals that have arrived
    answer = ranks.largest(0)

    def note(number: int, _frame: object) -> None:
        numbers.append(number)
        if len(numbers) > (1 if ranks.size == 1 else 2):
            raise Stopped(number)

    def check_stop() -> None:
        nonlocal answer
        own_number = numbers[0] if numbers else 0
        number = own_number if ranks.size == 1 else answer()
        if number:
            raise Stopped(number)
        answer = ranks.largest(own_number)

    with handled(STOPPING, note):
        yield check_stop
    if numbers:  # It came after the last update: the run has finished, and no other run begins.
        raise Stopped(numbers[0])
