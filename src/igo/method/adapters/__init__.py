"""The schedule inside other people's trainers, a file each, on the rest of method."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


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
