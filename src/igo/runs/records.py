"""The records of a run: metrics.jsonl, a line an epoch, and how far a checkpoint says that it goes.

Lines are appended, so that the end of an epoch costs the same however many there were. A second
file has the same lines, for the case that one of them is damaged.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from igo.errors import UserError
from igo.files import Record, from_json, open_regular, read_bytes, write_atomically

FILES = ("metrics.jsonl", ".metrics.jsonl.copy")
Mark = dict[str, int | str]  # bytes and SHA-256 of what a checkpoint stands for


class Records:
    """Writes the records of one run; a start begins with those that there are."""

    def __init__(self, folder: Path) -> None:
        self._files = [folder / name for name in FILES]
        self._bytes, self._digest = 0, hashlib.sha256()

    def begin(self, records: Sequence[Record]) -> None:
        """Make both files hold exactly these records."""
        text = "".join(line(record) for record in records)
        for file in self._files:
            write_atomically(file, text)
        self._bytes, self._digest = len(text.encode()), hashlib.sha256(text.encode())

    def append(self, record: Record) -> None:
        """Add a line to both files; the first is on the disk then."""
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
        """How far they go now, for a checkpoint."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def restore(folder: Path, mark: Mark) -> list[Record]:
    """The records that a checkpoint stands for, from whichever file has them whole."""
    for name in FILES:
        try:
            content = read_bytes(folder / name)[: int(mark["bytes"])]
        except OSError:
            continue
        if hashlib.sha256(content).hexdigest() == mark["sha256"]:
            return [from_json(one) for one in content.decode().splitlines()]
    raise UserError(
        f"{folder}: {' and '.join(FILES)} are both damaged or missing, so the epochs up to the"
        " checkpoint have no record. It is left as it is; fresh=true begins anew"
    )


def line(record: Record) -> str:
    """JSON has no NaN and no infinity: null stands for them, as for a test loss that overflows."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return json.dumps(plain, allow_nan=False) + "\n"
