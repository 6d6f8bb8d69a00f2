"""Loggers get the records that the run folder gets. Each is a file here and one in conf/tracking.

``tracking.tool`` names the file, which may have these:

- ``check(config)`` raises a UserError, before any compute, if the logger cannot log;
- ``start(config, folder, records, warn)`` returns a Logger that has the records of the complete
  epochs, however often the run was killed;
- ``logs_again()``: whether the logger gets a finished run again whose command is typed once more;
- ``advice(config, folder)``: a line that the user is told at the end of a run, or nothing;
- ``CURE``: the text with which a warning of the logger's failure ends.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from igo.config.schema import Config
from igo.ground.errors import first_line
from igo.ground.files import Record
from igo.runs.folder import RunFolder

Say = Callable[[str], None]  # a function that shows a line to the user


class Logger:
    """Takes the records of a run. This base class does nothing with them."""

    address = ""  # the web page of the run, if the logger has one

    def log(self, metrics: Record, step: int) -> None:
        """Take the record of an epoch, which is its step."""

    def close(self, exit_code: int = 0) -> None:
        """Close the run; ``exit_code`` 0 means that the run has finished."""


class Guarded(Logger):
    """The configured logger of a run, started, with the records so far.

    The logger's first error, also one at its start, becomes a warning, and the run goes on without
    a logger.
    """

    def __init__(
        self, config: Config, folder: RunFolder, records: Sequence[Record], warn: Say
    ) -> None:
        self._config, self._warn = config, warn
        start = _of_file(config, "start", lambda *_: Logger())
        self._logger = self._attempt(start, config, folder, records, warn) or Logger()
        self.address = self._logger.address

    def log(self, metrics: Record, step: int) -> None:
        """See Logger."""
        self._attempt(self._logger.log, metrics, step)

    def close(self, exit_code: int = 0) -> None:
        """See Logger."""
        self._attempt(self._logger.close, exit_code)

    def _attempt(self, call: Callable[..., Logger | None], *arguments: object) -> Logger | None:
        """What a call of the logger returns; None after an error, which ends the logger's use."""
        try:
            return call(*arguments)
        except Exception as error:  # Loggers raise anything, and their services may be dead.
            self._logger = Logger()  # From now on nothing is done.
            failure = f"{self._config.tracking.tool} failed ({first_line(error)})"
            cure = _of_file(self._config, "CURE", "")
            self._warn(f"{failure}, so it gets no more rows{cure}")
            return None


def check(config: Config) -> None:
    """Raise a UserError if the configured logger cannot log."""
    _of_file(config, "check", lambda _: None)(config)


def logs_again(config: Config) -> bool:
    """Whether the configured logger gets a finished run again."""
    return bool(_of_file(config, "logs_again", lambda: False)())


def advice(config: Config, folder: RunFolder) -> str:
    """What the user is told of the configured logger at the end of a run; it may be nothing."""
    return str(_of_file(config, "advice", lambda *_: "")(config, folder))


def _of_file(config: Config, name: str, default: Any) -> Any:
    """The function or constant of this name in the file of the configured logger.

    The default stands for one that the file does not have.
    """
    return getattr(importlib.import_module(f"{__name__}.{config.tracking.tool}"), name, default)
