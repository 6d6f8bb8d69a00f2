"""Whether the data that are here are those that a run was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from igo.config.schema import Config, place_of
from igo.data.identity import Identity, identify
from igo.data.source import Missing
from igo.errors import UserError
from igo.runs.folder import read_status


def of(config: Config, *, download: bool = True) -> Identity:
    """The data that a configuration names, as they are here.

    Raises:
        Missing: they are not, and were not or could not be downloaded.
    """
    return identify(config.dataset.name, place_of(config, download=download))


def check(what: str, recorded: object, here: Identity) -> None:
    """Hold the data that a record names against those that are here."""
    if not isinstance(recorded, Mapping) or recorded.get("fingerprint") == here.fingerprint:
        return
    entries = {one.name: recorded.get(one.name, "?") for one in fields(Identity)}
    before = Identity(**entries)
    raise UserError(
        f"{what} is of other data: {before}, and here are {here}. Point data_dir at"
        " the former; or train on the latter, in its place (fresh=true) or beside it (another"
        " runs_dir)"
    )


class Comparison:
    """Compares finished runs with the data that are here, looking at each data set once."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._known: dict[Any, Identity | None] = {}

    def finished(self, folder: Path, config: Config) -> None:
        """See that a run which is about to be reported as finished was trained on these data.

        Where it cannot be known, as the data are not here, or the run is of an old version, that
        is said.
        """
        recorded = read_status(folder).get("data")
        if not isinstance(recorded, Mapping):
            self._warn(f"{folder} does not say which data it was trained on: not compared")
            return
        here = self._here(config)
        if here is not None:
            check(str(folder), recorded, here)

    def _here(self, config: Config) -> Identity | None:
        key = config.dataset.name, place_of(config)
        if key not in self._known:
            try:
                self._known[key] = of(config, download=False)
            except Missing as error:
                self._known[key] = None
                self._warn(f"the data were not there to compare: {error}")
        return self._known[key]
