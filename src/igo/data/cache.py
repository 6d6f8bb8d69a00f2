"""Data sets as they were read, kept as plain arrays that all runs of a machine share.

Decompressing and parsing are paid once. Later runs map the arrays, so that the pages of one copy in
memory serve all of them; a run that wrote to its arrays would get pages of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from igo.files import from_json, read_bytes, sha256_of, write_atomically

Arrays = dict[str, np.ndarray]
Facts = dict[str, Any]
CHECKSUMS = "sha256.json"
SHA256 = "sha256"
PARTIAL = ".partial-"
ABANDONED = 24 * 3600  # seconds after which nobody writes a folder any more


def cached(
    folder: Path, name: str, sources: Iterable[object], read: Callable[[], Arrays]
) -> Arrays:
    """What ``read`` returns, from folder/NAME-DIGEST where an earlier call has left it.

    Args:
        folder: for all cached data sets; where it cannot be written, nothing is kept.
        name: of the data set.
        sources: what the content depends on: files (their size, times and inode count) or versions.
        read: called where there is nothing whole; its arrays are kept.
    """
    kept = folder / f"{name}-{digest(sources)}"
    found = _load(kept)
    if found is None:
        found = read()
        _keep(kept, found)
    return found


def remembered(
    folder: Path, name: str, sources: Iterable[object], find: Callable[[], Facts]
) -> Facts:
    """What ``find`` says of the same sources, from a small file beside the arrays.

    Its numbers and texts must follow from the sources alone. The file has the SHA-256 of them.
    """
    file = folder / f"{name}-{digest(sources)}.json"
    try:
        kept = from_json(read_bytes(file).decode())
        if kept[SHA256] == _sha256(kept["found"]):
            return dict(kept["found"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    found = find()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({"found": found, SHA256: _sha256(found)}) + "\n")
    except OSError:  # no place to write: it is found again the next time
        pass
    return found


def _sha256(found: Any) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def digest(sources: Iterable[object]) -> str:
    """Twelve digits of files, by which they are known, and of other values."""
    known = repr([_identity(one) for one in sources])
    return hashlib.sha256(known.encode()).hexdigest()[:12]


def _identity(source: object) -> object:
    if not isinstance(source, Path):
        return source
    return str(source.resolve()), stamp(source.stat())


def stamp(facts: os.stat_result) -> tuple[int, ...]:
    """By what a file is known to be the same: `cp -p` and tar keep size and time, not the rest."""
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def _load(kept: Path) -> Arrays | None:
    """The arrays of a folder, mapped copy-on-write; None where one is missing or damaged."""
    try:
        sums = json.loads(read_bytes(kept / CHECKSUMS))
        if any(Path(file).name != file for file in sums):  # leads out of the folder
            return None
        if any(sha256_of(kept / file) != wanted for file, wanted in sums.items()):
            return None
        return {
            Path(file).stem: np.load(kept / file, mmap_mode="c", allow_pickle=False)
            for file in sums
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _keep(kept: Path, arrays: Arrays) -> None:
    """Write a folder beside its place, then put it there whole; whoever is last wins."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        for left in kept.parent.glob(f"{PARTIAL}*"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=PARTIAL) as name:
            partial = Path(name) / "arrays"
            partial.mkdir()
            for key, array in arrays.items():
                np.save(partial / f"{key}.npy", array, allow_pickle=False)
            files = sorted(partial.iterdir())
            sums: dict[str, Any] = {file.name: sha256_of(file) for file in files}
            (partial / CHECKSUMS).write_text(json.dumps(sums))
            if kept.exists():  # damaged, as _load did not take it; or another run was faster
                shutil.rmtree(kept)
            partial.rename(kept)
    except OSError:  # no place to write, a full disk, another run at the same moment
        return
