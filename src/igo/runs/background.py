"""Background writing: an epoch's record and checkpoint are written while the next epoch trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager


class Writer:
    """Does one piece of work at a time, in order: in a thread if ``beside``, else at once.

    A piece begins after the last one is done, so at most one piece is not written yet.
    """

    def __init__(self, beside: bool) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1) if beside else None
        self._last: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Wait for the last piece, raise its error, and begin a new piece."""
        self.wait()
        if self._thread is None:
            work()
        else:
            self._last = self._thread.submit(work)

    def wait(self) -> None:
        """Wait for the last piece, and raise its error, once."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown()


@contextmanager
def writer(beside: bool) -> Iterator[Writer]:
    """A writer. When the body ends, also with an error, all of its work is done.

    Raises:
        Exception: the error of the last piece, unless the body raises another.
    """
    opened = Writer(beside)
    try:
        yield opened
        opened.wait()
    except BaseException:
        with contextlib.suppress(Exception):
            opened.wait()
        raise
    finally:
        opened.close()


def wanted(setting: bool | str, device: str) -> bool:
    """The value of engine.background; auto means only on a CPU, as no GPU was tried yet."""
    return device == "cpu" if setting == "auto" else str(setting).lower() == "true"
