"""Errors that are the user's to mend: one readable line, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the person at the terminal can put right; its text says what and how.

    Most functions may raise it. A docstring names it where a caller has to know more.
    """


class Outside(UserError):
    """Not the run's doing, such as a full disk: the same command may succeed later."""


class Busy(Outside):
    """Another process works on the same run."""


class ConfigError(UserError):
    """A setting, or a combination of settings, that cannot be run.

    Args:
        setting: full name as typed on the command line, e.g. ``schedule.kappa``.
        value: what it was set to.
        allowed: what would be right, and the cure where it is not obvious.
    """

    def __init__(self, setting: str, value: object, allowed: str) -> None:
        self.setting = setting
        shown = "null" if value is None else value
        super().__init__(f"{setting}={shown} is not allowed: {allowed}")


class NoEffect(ConfigError):
    """A setting that was typed, is sound by itself, and changes nothing here."""


def first_line(error: BaseException) -> str:
    """What an error says, in a line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name closest to ``name``, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
