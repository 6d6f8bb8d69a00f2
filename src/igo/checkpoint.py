"""Atomic save and load of everything that a bit-identical resume needs."""

from __future__ import annotations

import os
import zipfile
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


def load(path: Path, signature: str) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the newest whole checkpoint of a run into CPU memory, or None where there is none.

    Args:
        path: where the newest one is.
        signature: what ``save`` was given as ``state["signature"]``: whose checkpoint it must be.

    Returns:
        The state, and a warning for each damaged file that was passed over.
    """
    warnings: list[str] = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            return _read(candidate, signature), warnings
        except UserError as error:
            warnings.append(str(error))
    return None, warnings


def _read(path: Path, signature: str) -> dict[str, Any]:
    """Read one file without running code from it (weights_only).

    Raises:
        UserError: the file is damaged, or not a checkpoint of this run.
    """
    try:
        _verify(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make the readers raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise UserError(f"{path} is damaged ({reason})") from None
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise UserError(f"{path} is not a checkpoint of this version")
    if state.get("signature") != signature:
        raise UserError(f"{path} is the checkpoint of another run, {state.get('signature')}")
    return state


def _verify(path: Path) -> None:
    """Compare every part with its CRC-32, which torch.load itself does not.

    Raises:
        ValueError: a part is damaged (a damaged table of contents raises other errors).
    """
    with zipfile.ZipFile(path) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"checksum of {damaged}")


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
