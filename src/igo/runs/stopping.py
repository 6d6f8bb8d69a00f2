"""Signals end a run between two updates, so that its record is whole."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from igo.ground.ranks import ALONE, Ranks

# HUP is sent when the terminal is closed, and USR2 by SLURM before a time-out.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Stopped(SystemExit):
    """The signal of this number ends the program; the exit code is the shell's, 128 + number."""

    def __init__(self, number: int) -> None:
        self.signal_name = signal.Signals(number).name
        super().__init__(128 + number)


def stop(number: int, _frame: object) -> None:
    """A handler that ends the program at once, by an exception."""
    raise Stopped(number)


@contextmanager
def handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, object], None]
) -> Iterator[None]:
    """Call a handler for these signals while the body runs.

    A SIGHUP that the process ignores, as under nohup, stays ignored.
    """
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
    """Let a signal of STOPPING end the run between two updates, and a second signal at once.

    The body gets a function that it calls before each update: after a signal this function raises
    Stopped. All ranks stop at the same update, whichever of them got the signal. For that, each
    rank sends its signal's number to all at one update, and reads the largest number at the next,
    so that no rank waits. With several ranks it takes a third signal to end a rank at once, because
    `timeout` sends the first one twice.
    """
    numbers: list[int] = []  # of the signals that have arrived
    answer = ranks.largest(0)  # This function waits for the largest number of all ranks; 0 is none.

    def note(number: int, _frame: object) -> None:  # This is the handler of the signals.
        numbers.append(number)
        if len(numbers) > (1 if ranks.size == 1 else 2):
            raise Stopped(number)

    def check_stop() -> None:
        nonlocal answer
        own_number = numbers[0] if numbers else 0
        # What ``answer`` gives is the ranks' largest number at the update before.
        number = own_number if ranks.size == 1 else answer()
        if number:
            raise Stopped(number)
        answer = ranks.largest(own_number)

    with handled(STOPPING, note):
        yield check_stop
    if numbers:  # A signal came after the last update: the run has finished, and no other begins.
        raise Stopped(numbers[0])
