"""Writing beside training: an epoch's record and checkpoint reach the disk during the next one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager


class Writer:
    """Does one piece of work at a time, in order, beside the caller or at once.

    A piece is waited for before the next one begins: the disk is at most one behind.
    """

    def __init__(self, beside: bool) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1) if beside else None
        self._last: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Begin it, once the piece before is done; the error of that one is raised here."""
        self.wait()
        if self._thread is None:
            work()
        else:
            self._last = self._thread.submit(work)

    def wait(self) -> None:
        """Until all is done; raises what the last piece of work raised, once."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Begin nothing more."""
        if self._thread is not None:
            self._thread.shutdown()


@contextmanager
def writer(beside: bool) -> Iterator[Writer]:
    """A writer whose work is done when the body ends, whatever ends it.

    Raises:
        Exception: of the last piece, unless the body has its own to tell.
    """
    made = Writer(beside)
    try:
        yield made
        made.wait()
    except BaseException:
        with contextlib.suppress(Exception):
            made.wait()
        raise
    finally:
        made.close()


def wanted(setting: bool | str, device: str) -> bool:
    """Whether engine.background says so; auto: on a CPU, as nobody has tried it on a GPU yet."""
    return device == "cpu" if setting == "auto" else str(setting).lower() == "true"
