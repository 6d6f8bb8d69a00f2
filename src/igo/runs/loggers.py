"""Loggers, one for each value of tracking.tool. They get each record that the run folder gets.

A logger is a module with two functions. ``check(config)`` raises a UserError, before any compute,
if the logger cannot log. ``start(config, folder, records, warn)`` returns a Tracker that has the
records of the complete epochs, however often the run was killed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from igo.config.schema import LOGGERS, Config, TrackingConfig
from igo.ground.files import Record
from igo.runs.folder import RunFolder


class Tracker:
    """Takes the records of a run. This base class does nothing with them."""

    def log(self, record: Record) -> None:
        """Take the record of one epoch."""

    def attach(self, model: Path) -> None:
        """Take the file of the trained model."""

    def finish(self, exit_code: int) -> None:
        """Close the run; 0 means that it is finished."""


class OpeningTracker(Tracker):
    """Opens a tracker and calls it in a thread, so that training waits for no server.

    After an error the tracker is not called again: the run goes on without the logger, and the run
    folder has every record.

    Args:
        open_tracker: makes the tracker.
        warn_of: called once, with the first error.
        beside: false if training has to wait for each call.
    """

    def __init__(
        self,
        open_tracker: Callable[[], Tracker],
        warn_of: Callable[[Exception], None],
        *,
        beside: bool = True,
    ) -> None:
        self._thread, self._warn_of = ThreadPoolExecutor(1, "logger"), warn_of
        self._beside, self._failed = beside, False
        self._tracker: Tracker | None = None
        self._submit(lambda: setattr(self, "_tracker", open_tracker()))

    def log(self, record: Record) -> None:
        """See Tracker."""
        self._submit(lambda: self._opened().log(record))

    def attach(self, model: Path) -> None:
        """See Tracker."""
        self._submit(lambda: self._opened().attach(model))

    def finish(self, exit_code: int) -> None:
        """See Tracker."""
        self._submit(lambda: self._opened().finish(exit_code))
        self._thread.shutdown()

    def _opened(self) -> Tracker:
        if self._tracker is None:
            raise RuntimeError("it is not open")
        return self._tracker

    def _submit(self, call: Callable[[], None]) -> None:
        future = self._thread.submit(self._try, call)
        if not self._beside:
            future.result()

    def _try(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:  # loggers raise anything, and their services may be dead
            self._failed = True
            self._warn_of(error)


def check(config: Config) -> None:
    """Raise a UserError if the configured logger cannot log."""
    if config.tracking.tool != "none":
        _module(config.tracking).check(config)


def start(
    config: Config, folder: RunFolder, records: Sequence[Record], warn: Callable[[str], None]
) -> Tracker:
    """Start the configured logger, and send it the records that it lacks."""
    if config.tracking.tool == "none":
        return Tracker()
    tracker: Tracker = _module(config.tracking).start(config, folder, records, warn)
    return tracker


def _module(tracking: TrackingConfig) -> Any:
    return importlib.import_module(LOGGERS[tracking.tool])
