"""Implicit graduated optimization: SGD's own noise smooths the loss; schedule the noise."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igo.runs.trained import load_run as load_run

_HOMES = {"load_run": "igo.runs.trained"}  # imported when they are asked for: torch takes seconds
__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'igo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
