"""Atomic save and load of everything that a bit-identical resume needs."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from igo.errors import UserError
from igo.files import durable, partial_of

VERSION = 1
DIGEST_BYTES = 32  # SHA-256, after what torch.save wrote; torch.load passes over it


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one before stays beside it as ``previous-NAME``.

    Whatever moment the process dies at, one of the two is whole, if the one at ``path`` was.

    Raises:
        OSError: it cannot be written; both are as they were.
    """
    partial = partial_of(path)
    with durable(partial) as file:
        torch.save({"version": VERSION, **state}, file)
        file.seek(0)
        file.write(hashlib.file_digest(file, "sha256").digest())  # type: ignore[arg-type]
    if path.exists():
        path.replace(previous(path))
    partial.replace(path)
    sync_folder(path.parent)


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest one is kept."""
    return path.with_name(f"previous-{path.name}")


def set_aside(path: Path) -> None:
    """Keep a damaged checkpoint under another name, lest ``save`` put it over the whole one."""
    path.replace(path.with_name(f"damaged-{path.name}"))
    sync_folder(path.parent)


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
        state = torch.load(_verified(path), map_location="cpu", weights_only=True)
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


def _verified(path: Path) -> io.BytesIO:
    """Read a file and compare it with its digest; torch.load itself loads changed numbers.

    Raises:
        ValueError: a bit is not as it was written.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(memoryview(content)[:-DIGEST_BYTES]).digest()
    if digest != content[-DIGEST_BYTES:]:
        raise ValueError("its SHA-256 differs")
    return io.BytesIO(content)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
