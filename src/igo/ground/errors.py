"""Errors that the user can fix, each shown as one line without a traceback, and their wording."""

import difflib
import errno
import json
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import distributions
from urllib.parse import unquote, urlsplit

# The errors of a disk, which may come without a file's name.
OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class UserError(Exception):
    """An error that the user can fix. Its message says what is wrong and how to fix it.

    Most functions may raise it. A docstring names it if the caller has to handle it.
    """


class Outside(UserError):
    """An error from outside the run, such as a full disk: the same command may succeed later."""


class Busy(Outside):
    """Another process is working on the same run."""


class Damaged(UserError):
    """A file that is not as it was written, or is another run's."""

    def __str__(self) -> str:
        return f"{self.args[0]}; it is left as it is"


class ConfigError(UserError):
    """A setting, or a combination of settings, that cannot be run.

    Args:
        setting: the setting's full name on the command line, such as ``schedule.kappa``.
        value: the setting's value.
        advice: which values are right, and the cure if it is not obvious.
    """

    def __init__(self, setting: str, value: object, advice: str) -> None:
        super().__init__(setting, value, advice)

    def __str__(self) -> str:
        setting, value, advice = self.args
        return f"{setting}={'null' if value is None else value} is not allowed: {advice}"


def require(holds: bool, setting: str, value: object, advice: str) -> None:
    """Raise a ConfigError unless a rule holds."""
    if not holds:
        raise ConfigError(setting, value, advice)


def told(error: BaseException) -> str:
    """The line shown for an error that the user can fix; empty for a mistake of the program."""
    if isinstance(error, OSError) and (error.filename or error.errno in OF_OUTPUT):
        return f"{error.filename or 'output'}: {error.strerror}"
    return str(error) if isinstance(error, UserError) else ""


def reading(error: BaseException) -> type[UserError]:
    """The class to raise for an error in reading a file.

    Outside for an error of the system, which has an errno; else UserError.
    """
    return Outside if getattr(error, "errno", None) else UserError


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type if the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def printable(text: str) -> str:
    """The text with escapes for control characters, which could steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    sys.stdout.flush()  # stdout and stderr may be one file, whose lines shall stay in order.
    print(f"warning: {text}", file=sys.stderr, flush=True)


warn_once = cache(warn)  # A process prints the same warning once.


def nearest(name: str, names: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with the name closest to ``name``; empty if none of them is close."""
    spellings = {other.lower(): other for other in names}
    matches = difflib.get_close_matches(name.lower(), spellings, n=1, cutoff=0.6)
    return f" Did you mean '{spellings[matches[0]]}'?" if matches else ""


def install(extras: str) -> str:
    """The command that installs this package once more from where it came, with extras."""
    for package in distributions(name="igo"):
        origin = json.loads(package.read_text("direct_url.json") or "{}")
        if origin:  # The package came from a folder or a wheel, not from an index.
            flag = "-e " if origin.get("dir_info", {}).get("editable") else ""
            return f"pip install {flag}'{unquote(urlsplit(origin['url']).path)}[{extras}]'"
    return f"pip install 'igo[{extras}]'"


def counted(count: int, noun: str) -> str:
    """``1 epoch``, ``1,200 epochs``."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"
