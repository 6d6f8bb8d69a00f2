"""Atomic save and load of everything that a bit-identical resume needs."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from igo.ground.errors import Outside, UserError
from igo.ground.files import durable, partial_of

VERSION = 2  # of the format
DIGEST_BYTES = 32  # SHA-256, after what torch.save wrote; torch.load skips it


class Damaged(UserError):
    """The bytes of a checkpoint are not those that a run wrote."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; the last one is kept beside it as ``previous-NAME``.

    At whatever moment the process dies, one of the two is whole, if ``path`` was whole before.
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
    """The file of the checkpoint before the newest one."""
    return path.with_name(f"previous-{path.name}")


def set_aside(path: Path) -> None:
    """Rename a damaged checkpoint; else ``save`` would replace the previous, whole one by it."""
    if path.exists():
        path.replace(path.with_name(f"damaged-{path.name}"))
        sync_folder(path.parent)


def load(path: Path, signature: str) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the newest whole checkpoint of a run into CPU memory, or None where there is none.

    Args:
        path: the newest one.
        signature: the run's name, which ``save`` got as ``state["signature"]``.

    Returns:
        The state, and a warning for each damaged file that was skipped.
    """
    warnings: list[str] = []
    for candidate in (path, previous(path)):
        try:
            return _read(candidate, signature), warnings
        except FileNotFoundError:
            continue
        except Damaged as error:
            warnings.append(str(error))
        except OSError as error:
            raise Outside(
                f"{candidate} cannot be read ({error.strerror or error}); it may be whole, so it is"
                " left as it is. Once it can be read, the same command continues; fresh=true"
                " starts over"
            ) from None
    return None, warnings


def _read(path: Path, signature: str) -> dict[str, Any]:
    """Read one file without running code from it (weights_only).

    Raises:
        Damaged: the file is damaged, or is no checkpoint of this run.
    """
    content = path.read_bytes()
    try:
        # torch.load does not notice changed numbers.
        if hashlib.sha256(memoryview(content)[:-DIGEST_BYTES]).digest() != content[-DIGEST_BYTES:]:
            raise ValueError("its SHA-256 differs")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make the readers raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise Damaged(f"{path} is damaged ({reason})") from None
    version = state.get("version") if isinstance(state, dict) else None
    if version is None:
        raise Damaged(f"{path} is not a checkpoint of a run")
    if version != VERSION:
        raise UserError(
            f"{path} was made by another version of igo; it is left as it is. Continue with that"
            " version; fresh=true starts over"
        )
    if state.get("signature") != signature:
        raise Damaged(f"{path} is the checkpoint of another run, {state.get('signature')}")
    return dict(state)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
