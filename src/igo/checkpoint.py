"""Atomic save and load of everything that a bit-identical resume needs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from igo.errors import UserError

VERSION = 1


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one before stays beside it as ``previous-NAME``.

    Whatever moment the process dies at, one of the two is whole.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        torch.save({"version": VERSION, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        path.replace(previous(path))
    partial.replace(path)
    sync_folder(path.parent)


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest one is kept."""
    return path.with_name(f"previous-{path.name}")


def load(path: Path, device: torch.device) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the newest whole checkpoint, onto the device, or None where there is none.

    Returns:
        The state, and a warning for each damaged file that was passed over.
    """
    warnings: list[str] = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            return _read(candidate, device), warnings
        except UserError as error:
            warnings.append(str(error))
    return None, warnings


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """Read one file without running code from it (weights_only).

    Raises:
        UserError: the file is damaged, or not a checkpoint of this project.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged ({str(error).splitlines()[0][:80]})") from None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise UserError(f"{path} is not a checkpoint of this version")
    return state


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
