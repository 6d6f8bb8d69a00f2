"""Where records go beside the run folder: a logger for each value of tracking.tool.

A logger is a module with two functions. ``check(tracking)`` raises a UserError, before any compute,
where it could not log. ``start(config, folder, records, warn)`` returns a Tracker that has the
records of the epochs that are complete, however often the run was killed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from igo.config.schema import LOGGERS, Config, TrackingConfig
from igo.files import Record
from igo.runs.folder import RunFolder


class Tracker:
    """Where records go beside the run folder; this one leads nowhere."""

    failed = False  # whether W&B lacks something that `igo sync` has to bring

    def log(self, record: Record) -> None:
        """Take the record of one epoch."""

    def attach(self, model: Path) -> None:
        """Take the file of the trained model."""

    def finish(self, exit_code: int) -> None:
        """Close the run; 0 means that it is finished."""


class OpeningTracker(Tracker):
    """A tracker that opens, and takes records, beside training, which waits for no server.

    One thread does all, in order. After an error there it takes nothing more: the run goes on
    without the logger, and its own record has everything.

    Args:
        opened: makes the tracker.
        gave_up: told of the error, once.
        beside: false where training has to wait for each call.
    """

    def __init__(
        self,
        opened: Callable[[], Tracker],
        gave_up: Callable[[Exception], None],
        *,
        beside: bool = True,
    ) -> None:
        self._thread, self._gave_up = ThreadPoolExecutor(1, "logger"), gave_up
        self._beside = beside
        self._tracker: Tracker | None = None
        self._do(lambda: setattr(self, "_tracker", opened()))

    def log(self, record: Record) -> None:
        """See Tracker."""
        self._do(lambda: self._opened().log(record))

    def attach(self, model: Path) -> None:
        """See Tracker."""
        self._do(lambda: self._opened().attach(model))

    def finish(self, exit_code: int) -> None:
        """See Tracker."""
        self._do(lambda: self._opened().finish(exit_code))
        self._thread.shutdown()

    def _opened(self) -> Tracker:
        if self._tracker is None:
            raise RuntimeError("it is not open")
        return self._tracker

    def _do(self, work: Callable[[], None]) -> None:
        done = self._thread.submit(self._tried, work)
        if not self._beside:
            done.result()

    def _tried(self, work: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            work()
        except Exception as error:  # loggers raise anything, and their services may be dead
            self.failed = True
            self._gave_up(error)


def check(tracking: TrackingConfig) -> None:
    """Ask the configured logger whether it could log."""
    if tracking.tool != "none":
        _module(tracking).check(tracking)


def start(
    config: Config, folder: RunFolder, records: Sequence[Record], warn: Callable[[str], None]
) -> Tracker:
    """Start the configured logger, and bring it up to the records of the complete epochs."""
    if config.tracking.tool == "none":
        return Tracker()
    tracker: Tracker = _module(config.tracking).start(config, folder, records, warn)
    return tracker


def _module(tracking: TrackingConfig) -> Any:
    return importlib.import_module(LOGGERS[tracking.tool])
