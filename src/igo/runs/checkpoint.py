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


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint. At whatever moment the process dies, the old or the new one is whole."""
    partial = partial_of(path)
    with durable(partial) as file:
        torch.save({"version": VERSION, **state}, file)
        file.seek(0)
        file.write(hashlib.file_digest(file, "sha256").digest())  # type: ignore[arg-type]
    partial.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)  # the rename survives a power cut
    finally:
        os.close(handle)


def load(path: Path, signature: str) -> dict[str, Any] | None:
    """Load a run's checkpoint into CPU memory, without running code from it (weights_only).

    Args:
        path: the file. It is left as it is.
        signature: the run's name, which ``save`` got as ``state["signature"]``.

    Returns:
        The state; None where there is no file.

    Raises:
        UserError: the file is damaged, or of another version or run.
        Outside: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Outside(
            f"{path} cannot be read ({error.strerror or error}); it may be whole, so it is left as"
            " it is. Once it can be read, the same command continues; fresh=true starts over"
        ) from None
    left = "it is left as it is. fresh=true starts over"
    try:
        # torch.load does not notice changed numbers.
        if hashlib.sha256(memoryview(content)[:-DIGEST_BYTES]).digest() != content[-DIGEST_BYTES:]:
            raise ValueError("its SHA-256 differs")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make the readers raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise UserError(f"{path} is damaged ({reason}); {left}") from None
    version = state.get("version") if isinstance(state, dict) else None
    if version != VERSION:
        raise UserError(f"{path} is not a checkpoint of this version of igo; {left}")
    if state.get("signature") != signature:
        raise UserError(
            f"{path} is the checkpoint of another run, {state.get('signature')}; {left}"
        )
    return dict(state)
