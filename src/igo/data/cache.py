"""A cache of data sets as plain arrays, which all runs of a machine share.

A data set is decompressed and parsed once. Later runs map the arrays, so they share a single copy
in memory; a run that writes to its arrays gets pages of its own.
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

from igo.ground.files import sha256_of, write_atomically

Arrays = dict[str, np.ndarray]
Facts = dict[str, Any]
CHECKSUMS = "sha256.json"
SHA256 = "sha256"
PARTIAL = ".partial-"
ABANDONED = 24 * 3600  # seconds after which no process still writes a partial folder


def cached(
    folder: Path, name: str, sources: Iterable[object], read: Callable[[], Arrays]
) -> Arrays:
    """The arrays of ``read``, from folder/NAME-DIGEST if an earlier call has saved them.

    Args:
        folder: of all cached data sets; if igo cannot write to it, nothing is saved.
        name: of the data set.
        sources: what the content depends on: files (their size, times and inode number) or
            versions.
        read: called if nothing whole is saved; its arrays are saved.
    """
    path = folder / f"{name}-{digest(sources)}"
    arrays = _load(path)
    if arrays is None:
        arrays = read()
        _keep(path, arrays)
    return arrays


def remembered(
    folder: Path, name: str, sources: Iterable[object], find: Callable[[], Facts]
) -> Facts:
    """The facts of ``find``, which depend on the sources alone, from a file beside the arrays."""
    file = folder / f"{name}-{digest(sources)}.json"
    try:
        saved = json.loads(file.read_bytes().decode())
        if saved[SHA256] == _sha256(saved["found"]):
            return dict(saved["found"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    facts = find()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({"found": facts, SHA256: _sha256(facts)}) + "\n")
    except OSError:  # it cannot be written: the next call finds the facts again
        pass
    return facts


def _sha256(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def digest(sources: Iterable[object]) -> str:
    """Twelve digits of a SHA-256 of files' identities and of other values."""
    known = repr([_identity(source) for source in sources])
    return hashlib.sha256(known.encode()).hexdigest()[:12]


def _identity(source: object) -> object:
    if not isinstance(source, Path):
        return source
    return str(source.resolve()), stamp(source.stat())


def stamp(facts: os.stat_result) -> tuple[int, ...]:
    """What identifies a file's content: `cp -p` and tar keep size and time, not the rest."""
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def _load(folder: Path) -> Arrays | None:
    """The arrays of a folder, mapped copy-on-write; None if one is missing or damaged."""
    try:
        checksums = json.loads((folder / CHECKSUMS).read_bytes())
        if any(Path(name).name != name for name in checksums):  # leads out of the folder
            return None
        if any(sha256_of(folder / name) != checksum for name, checksum in checksums.items()):
            return None
        return {
            Path(name).stem: np.load(folder / name, mmap_mode="c", allow_pickle=False)
            for name in checksums
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _keep(folder: Path, arrays: Arrays) -> None:
    """Write a temporary folder, then rename it to its place. The last process wins."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in folder.parent.glob(f"{PARTIAL}*"):  # by a process that was killed
            if time.time() - abandoned.stat().st_mtime > ABANDONED:
                shutil.rmtree(abandoned, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL) as name:
            partial = Path(name) / "arrays"
            partial.mkdir()
            for key, array in arrays.items():
                np.save(partial / f"{key}.npy", array, allow_pickle=False)
            files = sorted(partial.iterdir())
            checksums: dict[str, Any] = {file.name: sha256_of(file) for file in files}
            (partial / CHECKSUMS).write_text(json.dumps(checksums))
            if folder.exists():  # damaged, as _load did not take it; or another run was faster
                shutil.rmtree(folder)
            partial.rename(folder)
    except OSError:  # no place to write, a full disk, another run at the same moment
        return
