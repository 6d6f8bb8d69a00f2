"""Loggers get the records that the run folder gets. Each is a file here and one in conf/tracking.

``tracking.tool`` names the file. It has two functions. ``check(config)`` raises a UserError, before
any compute, if the logger cannot log. ``start(config, folder, records, warn)`` returns a Logger
that has the records of the complete epochs, however often the run was killed.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from igo.config.schema import Config
from igo.ground.errors import first_line
from igo.ground.files import Record
from igo.runs.folder import RunFolder

Say = Callable[[str], None]  # shows a line to the user


class Logger:
    """Takes the records of a run. This base class does nothing with them."""

    def log(self, metrics: Record, step: int) -> None:
        """Take the record of one epoch; ``step`` is the epoch."""

    def close(self, exit_code: int = 0) -> None:
        """Close the run; 0 means that it is finished."""


class Guarded(Logger):
    """Calls a logger. After its first error it warns, and the run goes on without the logger."""

    def __init__(self, tool: str, warn: Say, start: Callable[[], Logger]) -> None:
        self._tool, self._warn = tool, warn
        self._logger = self._attempt(start) or Logger()

    def log(self, metrics: Record, step: int) -> None:
        """See Logger."""
        self._attempt(lambda: self._logger.log(metrics, step))

    def close(self, exit_code: int = 0) -> None:
        """See Logger."""
        self._attempt(lambda: self._logger.close(exit_code))

    def _attempt(self, call: Callable[[], Logger | None]) -> Logger | None:
        try:
            return call()
        except Exception as error:  # loggers raise anything, and their services may be dead
            self._logger = Logger()
            later = "; `igo sync` sends the rows later" if self._tool == "wandb" else ""
            self._warn(f"{self._tool} failed ({first_line(error)}), so it gets no more rows{later}")
            return None


def check(config: Config) -> None:
    """Raise a UserError if the configured logger cannot log."""
    if config.tracking.tool != "none":
        _module(config).check(config)


def start(config: Config, folder: RunFolder, records: Sequence[Record], warn: Say) -> Logger:
    """Start the configured logger, and send it the records that it lacks."""
    if config.tracking.tool == "none":
        return Logger()
    return Guarded(
        config.tracking.tool,
        warn,
        partial(_module(config).start, config, folder, records, warn),
    )


def _module(config: Config) -> Any:
    return importlib.import_module(f"{__name__}.{config.tracking.tool}")
