"""Arrays that are found once and kept in an .npz, which later runs read."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from igo.ground.files import durable, partial_of


def kept(file: Path, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The arrays of a file or, if it is missing or damaged, made and kept in it.

    If igo cannot write the file, nothing is kept.
    """
    with contextlib.suppress(Exception):
        return read(file)  # an .npz has a checksum for each array
    arrays = {name: np.asarray(array) for name, array in make().items()}
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with durable(partial_of(file)) as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        partial_of(file).replace(file)
    return arrays


def remembered(file: Path, find: Callable[[], Any]) -> Any:
    """A value of plain numbers and texts, from the file or found and kept, like ``kept``."""
    return json.loads(str(kept(file, lambda: {"json": json.dumps(find())})["json"]))


def read(file: Path) -> dict[str, Any]:
    """The arrays of an .npz. A damaged file raises an error of any kind."""
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)


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
