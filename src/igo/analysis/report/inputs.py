"""What a report was made of, so that it is not made again of the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from igo.files import write_atomically
from igo.runs.provenance import code

STAMP = ".inputs"  # beside the page
KINDS = {".json", ".jsonl", ".yaml", ".csv"}  # of a run's files, those that a report reads


def fingerprint(folders: Sequence[Path], settings: object) -> str:
    """SHA-256 of settings, this package's sources, and name, size and time of the runs' files."""
    found = hashlib.sha256(f"{code(all_rooms=True)}\0{settings}".encode())
    for folder in sorted(folders):
        for file in sorted(one for one in folder.glob("*") if one.suffix in KINDS):
            stat = file.stat()
            found.update(f"\0{file}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return found.hexdigest()


def is_current(page: Path, inputs: str) -> bool:
    """Whether the page is there and was made of these inputs."""
    stamp = page.parent / STAMP
    return page.is_file() and stamp.is_file() and stamp.read_text() == inputs


def keep(page: Path, inputs: str) -> None:
    """Write down what the page was made of."""
    write_atomically(page.parent / STAMP, inputs)
