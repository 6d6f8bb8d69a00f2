"""The schedule inside other people's trainers, a file each, on the rest of method."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from igo.errors import UserError


def need(library: str) -> ModuleType:
    """Import a library.

    Raises:
        ModuleNotFoundError: in one line, what to install.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library.partition(".")[0]:
            raise
        name = error.name
    raise ModuleNotFoundError(
        f"igo.method.adapters.{name} needs {name}: pip install {name}", name=name
    )


def refuse_accumulation(setting: str, steps: int, cure: str = "a loop of your own with ") -> None:
    """Refuse a trainer's accumulation, which would change what an update is.

    Raises:
        UserError: ``steps`` of the setting is not 1.
    """
    if steps != 1:
        raise UserError(
            f"{setting} must be 1: the plan has the batch sizes. For a batch too large for the"
            f" memory use {cure}BatchSampler(…, parts=…)"
        )
