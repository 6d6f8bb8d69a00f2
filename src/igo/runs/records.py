"""The records of a run: metrics.jsonl, a line for each epoch; a checkpoint has the file's length.

Lines are appended, so that each epoch costs the same. A second file has the same lines, in case the
first file is damaged.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from igo.ground.errors import UserError
from igo.ground.files import Record, from_json, open_regular, read_bytes, write_atomically

FILES = ("metrics.jsonl", ".metrics.jsonl.copy")
Mark = dict[str, int | str]  # bytes and SHA-256 of the lines up to a checkpoint


class Records:
    """Writes the records of one run."""

    def __init__(self, folder: Path) -> None:
        self._files = [folder / name for name in FILES]
        self._bytes, self._digest = 0, hashlib.sha256()

    def begin(self, records: Sequence[Record]) -> None:
        """Make both files hold exactly these records, which mends a torn line."""
        text = "".join(line(record) for record in records)
        for file in self._files:
            write_atomically(file, text)
        self._bytes, self._digest = len(text.encode()), hashlib.sha256(text.encode())

    def append(self, record: Record) -> None:
        """Add a line to both files, and bring the first one to the disk."""
        added = line(record).encode()
        for file in self._files:
            with open_regular(file, "ab") as opened:
                opened.write(added)
                opened.flush()
                if file == self._files[0]:
                    os.fsync(opened.fileno())
        self._bytes += len(added)
        self._digest.update(added)

    def mark(self) -> Mark:
        """The present length of the files and its digest, for a checkpoint."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def restore(folder: Path, mark: Mark) -> list[Record]:
    """The records up to a checkpoint, from the first of the two files that has them whole."""
    for name in FILES:
        try:
            content = read_bytes(folder / name)[: int(mark["bytes"])]
        except OSError:
            continue
        if hashlib.sha256(content).hexdigest() == mark["sha256"]:
            return [from_json(row) for row in content.decode().splitlines()]
    raise UserError(
        f"{folder}: {' and '.join(FILES)} are both damaged or missing, so the epochs up to the"
        " checkpoint have no record. The checkpoint is left as it is; fresh=true starts over"
    )


def line(record: Record) -> str:
    """A record as a line of JSON, with null for NaN and infinity, which JSON does not have."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return json.dumps(plain, allow_nan=False) + "\n"
