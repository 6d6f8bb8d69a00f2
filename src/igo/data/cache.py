"""Facts about files that are found once and kept in data_dir/cache, which later runs read."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from igo.ground.files import write_atomically


def remembered(file: Path, find: Callable[[], Any]) -> Any:
    """A value of plain numbers and texts from a file or, if it is missing, found and kept in it.

    If igo cannot write the file, nothing is kept.
    """
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text())
    value = find()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(value))
    return value


def digest(*sources: object) -> str:
    """Twelve digits of a SHA-256: of files (their size, times and inode), arrays and values."""
    known = hashlib.sha256()
    for source in sources:
        if isinstance(source, Path):
            known.update(repr((str(source.resolve()), stamp(source))).encode())
        elif isinstance(source, np.ndarray):
            known.update(np.ascontiguousarray(source).data)
        else:
            known.update(repr(source).encode())
    return known.hexdigest()[:12]


def stamp(file: str | Path) -> tuple[int, ...]:
    """What identifies a file's content: `cp -p` and tar keep size and time, not the rest."""
    facts = Path(file).stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino
