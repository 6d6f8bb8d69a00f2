"""Loggers get the records that the run folder gets. Each is a file here and one in conf/tracking.

``tracking.tool`` names the file. It has two functions. ``check(config)`` raises a UserError, before
any compute, if the logger cannot log. ``start(config, folder, records, warn)`` returns a Logger
that has the records of the complete epochs, however often the run was killed. It may also have

- ``logs_again()``: whether it gets a finished run again whose command is typed once more;
- ``advice(config, folder)``: a line that the user is told at the end of a run, or nothing;
- ``CURE``: what is said, beside the error, where it fails.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from igo.config.schema import Config
from igo.ground.errors import first_line
from igo.ground.files import Record
from igo.runs.folder import RunFolder

Say = Callable[[str], None]  # It shows a line to the user.


class Logger:
    """Takes the records of a run. This base class does nothing with them."""

    address = ""  # A person sees the run there.

    def log(self, metrics: Record, step: int) -> None:
        """Take the record of an epoch, which is its step."""

    def close(self, exit_code: int = 0) -> None:
        """Close the run; 0 means that it is finished."""


class Guarded(Logger):
    """Calls a logger. After its first error it warns, and the run goes on without the logger.

    ``start`` makes the logger, and the warning ends with ``cure``.
    """

    def __init__(self, tool: str, cure: str, warn: Say, start: Callable[[], Logger]) -> None:
        self._tool, self._cure, self._warn = tool, cure, warn
        self._logger = self._attempt(start) or Logger()
        self.address = self._logger.address

    def log(self, metrics: Record, step: int) -> None:
        """See Logger."""
        self._attempt(lambda: self._logger.log(metrics, step))

    def close(self, exit_code: int = 0) -> None:
        """See Logger."""
        self._attempt(lambda: self._logger.close(exit_code))

    def _attempt(self, call: Callable[[], Logger | None]) -> Logger | None:
        """What a call returns; None after an error, which ends the use of the logger."""
        try:
            return call()
        except Exception as error:  # Loggers raise anything, and their services may be dead.
            self._logger = Logger()
            reason = first_line(error)
            self._warn(f"{self._tool} failed ({reason}), so it gets no more rows{self._cure}")
            return None


def check(config: Config) -> None:
    """Raise a UserError if the configured logger cannot log."""
    _of_file(config, "check", lambda _: None)(config)


def start(config: Config, folder: RunFolder, records: Sequence[Record], warn: Say) -> Logger:
    """Start the configured logger, and send it the records that it lacks."""
    begin = partial(_of_file(config, "start", lambda *_: Logger()), config, folder, records, warn)
    return Guarded(config.tracking.tool, _of_file(config, "CURE", ""), warn, begin)


def logs_again(config: Config) -> bool:
    """Whether the configured logger gets a finished run again."""
    return bool(_of_file(config, "logs_again", lambda: False)())


def advice(config: Config, folder: RunFolder) -> str:
    """What the user is told of the configured logger at the end of a run; it may be nothing."""
    return str(_of_file(config, "advice", lambda *_: "")(config, folder))


def _of_file(config: Config, name: str, default: Any) -> Any:
    """What the file of the configured logger has under a name, or the default."""
    if config.tracking.tool == "none":  # It has no file.
        return default
    return getattr(importlib.import_module(f"{__name__}.{config.tracking.tool}"), name, default)
