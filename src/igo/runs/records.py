"""The records of a run: metrics.jsonl, a line for each epoch; a checkpoint has the file's length.

Lines are appended, so that each epoch costs the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from igo.ground.errors import UserError
from igo.ground.files import Record, write_atomically

NAME = "metrics.jsonl"
Mark = dict[str, int | str]  # bytes and SHA-256 of the lines up to a checkpoint


class Records:
    """Writes the records of one run."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self._bytes, self._digest = 0, hashlib.sha256()

    def begin(self, records: Sequence[Record]) -> None:
        """Make the file hold exactly these records, which mends a torn line."""
        text = "".join(line(record) for record in records)
        write_atomically(self._file, text)
        self._bytes, self._digest = len(text.encode()), hashlib.sha256(text.encode())

    def append(self, record: Record) -> None:
        """Add a line, and bring it to the disk."""
        added = line(record).encode()
        with self._file.open("ab") as file:
            file.write(added)
            file.flush()
            os.fsync(file.fileno())
        self._bytes += len(added)
        self._digest.update(added)

    def mark(self) -> Mark:
        """The present length of the file and its digest, for a checkpoint."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def restore(folder: Path, mark: Mark) -> list[Record]:
    """The records up to a checkpoint."""
    file = folder / NAME
    content = file.read_bytes()[: int(mark["bytes"])] if file.exists() else b""
    if hashlib.sha256(content).hexdigest() != mark["sha256"]:
        raise UserError(
            f"{file} is damaged or missing, so the epochs up to the checkpoint have no record. The"
            " checkpoint is left as it is; fresh=true starts over"
        )
    return [json.loads(row) for row in content.decode().splitlines()]


def line(record: Record) -> str:
    """A record as a line of JSON, with null for NaN and infinity, which JSON does not have."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return json.dumps(plain, allow_nan=False) + "\n"
