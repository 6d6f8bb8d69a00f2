"""Whether the data here are those that a run was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from igo.config.schema import Config, place_of
from igo.data.identity import Identity, identify
from igo.data.source import Missing
from igo.ground.errors import UserError
from igo.runs.folder import read_status


def identity_of(config: Config, *, download: bool = True) -> Identity:
    """The identity of a configuration's data.

    Raises:
        Missing: they are not here, and were not or could not be downloaded.
    """
    return identify(config.dataset.name, place_of(config, download=download))


def check(place: str, recorded: object, here: Identity) -> None:
    """Compare the data of a record with the data here.

    Args:
        place: the recorded run, for the error.
        recorded: the entry ``data`` of its status.json or checkpoint.
        here: the data here.
    """
    if not isinstance(recorded, Mapping) or recorded.get("fingerprint") == here.fingerprint:
        return
    entries = {field.name: recorded.get(field.name, "?") for field in fields(Identity)}
    before = Identity(**entries)
    setting = {"arrays": "dataset.file", "folder": "dataset.root"}.get(here.name, "data_dir")
    raise UserError(
        f"{place} was trained on other data: {before}. The data here are {here}. Set {setting} to"
        " the place of the run's data, or train on these: in the same folder with fresh=true, or in"
        " another runs_dir"
    )


class Comparison:
    """Compares finished runs with the data here, and reads each data set once."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._identities: dict[Any, Identity | None] = {}

    def finished(self, folder: Path, config: Config) -> None:
        """Raise a UserError if a finished run was trained on other data than the data here.

        Warns if that is unknown: the data are not here, or the record does not say.
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
        if key not in self._identities:
            try:
                self._identities[key] = identity_of(config, download=False)
            except Missing as error:
                self._identities[key] = None
                self._warn(f"the data are not here, so they were not compared: {error}")
        return self._identities[key]
