"""Files that are written whole or not at all, and read as values of somebody else's."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from igo.errors import ConfigError, UserError
from igo.words import all_printable

# Files of a run that are not replaced but extended.
EXTENDED = ("metrics.jsonl", ".metrics.jsonl.copy", "output.log")
Record = dict[str, Any]  # what a line of metrics.jsonl or a file like status.json holds


def from_json(text: str) -> Any:
    """``json.loads`` for files of others: texts are printable, nesting too deep a ValueError."""
    try:
        return all_printable(json.loads(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def open_regular(path: Path, mode: str = "rb") -> IO[Any]:
    """Open a file without waiting for another program, as a FIFO would."""
    return open(path, mode, opener=_regular)


def _regular(path: str, flags: int) -> int:
    handle = os.open(path, flags | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return handle


def read_bytes(path: Path) -> bytes:
    """The content of a regular file."""
    with open_regular(path) as file:
        content: bytes = file.read()
    return content


def sha256_of(path: Path) -> str:
    """The SHA-256 of a regular file, in hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def partial_of(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def durable(partial: Path) -> Iterator[IO[bytes]]:
    """A new file, which is on the disk when the body ends, or gone."""
    try:
        partial.unlink(missing_ok=True)  # it may have another name, or lead, outside
        with partial.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # on a full disk its room is wanted
        cause = error.__context__  # torch.save hides a full disk behind an error of its own
        raise cause if isinstance(cause, OSError) else error from None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content: readers see the old or the new, never a part."""
    replace_all({path: text.encode()})


def replace_all(contents: Mapping[Path, bytes]) -> None:
    """Replace files once all of them are on the disk; an OSError leaves the old ones alone."""
    written: list[Path] = []
    try:
        for path, data in contents.items():
            with durable(partial_of(path)) as file:
                file.write(data)
            written.append(path)
    except OSError:
        for path in written:
            partial_of(path).unlink(missing_ok=True)
        raise
    for path in contents:
        partial_of(path).replace(path)


def make_writable(folder: Path) -> None:
    """Make a folder under runs_dir."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write in {folder}")
    except OSError as error:
        raise UserError(f"runs_dir: {folder} cannot be made ({error.strerror or error})") from None


def output_folder(output: object) -> Path:
    """The folder that the setting ``output`` names, there or not."""
    if not isinstance(output, str) or not output or Path(output).is_file():
        raise ConfigError("output", output, "it must be the name of a folder")
    return Path(output)


def check_can_be_made(folder: Path) -> None:
    """See that a folder of runs_dir is there or can be made, and leave no trace."""
    place = folder.parent
    try:
        if not folder.is_dir():  # tried, not asked: root seems to have every permission
            standing = next(one for one in (place, *place.parents) if os.path.lexists(one))
            with tempfile.TemporaryDirectory(prefix=".trial-", dir=standing):
                pass
    except OSError as error:
        why = f"it cannot be made or written in ({error.strerror or error})"
        raise ConfigError("runs_dir", place, f"{why}; name a folder that can be") from None


def refuse_links(folder: Path) -> None:
    """See that what is written in a run folder stays in it, wherever the folder came from."""
    for entry in folder.iterdir():
        facts = entry.lstat()
        if stat.S_ISLNK(facts.st_mode):
            raise UserError(f"{entry} is a link, which no file of a run is; remove it")
        if not (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)):
            raise UserError(f"{entry} is no regular file, as all files of a run are; remove it")
        if entry.name in EXTENDED and facts.st_nlink > 1:
            raise UserError(
                f"{entry} has a second name, in this folder or outside (a hard link), and would be"
                " written to under both; put a copy in its place"
            )
