"""What an adapter says where its library is missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from igo.errors import UserError


def need(library: str) -> ModuleType:
    """Import a library.

    Raises:
        UserError: it is not installed; the line says what to install.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library.partition(".")[0]:
            raise
        name = error.name
    raise UserError(f"igo.adapters.{name} needs {name}: pip install {name}")
