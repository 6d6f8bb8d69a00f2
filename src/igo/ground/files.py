"""Writing files whole or not at all, and reading files without trusting their content."""

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

from igo.ground.errors import ConfigError, UserError
from igo.ground.words import all_printable

# Files of a run to which lines are appended. The other files are replaced.
EXTENDED = ("metrics.jsonl", ".metrics.jsonl.copy", "output.log")
Record = dict[str, Any]  # what a line of metrics.jsonl or a file like status.json holds


def from_json(text: str) -> Any:
    """Parse JSON of unknown origin and make its strings printable. Too deep nesting: ValueError."""
    try:
        return all_printable(json.loads(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def open_regular(path: Path, mode: str = "rb") -> IO[Any]:
    """Open a regular file. Other files are refused: opening a FIFO waits for another program."""
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
    """The temporary path that a file has while it is written."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def durable(partial: Path) -> Iterator[IO[bytes]]:
    """Open a new file. After the body it is on the disk; an OSError or RuntimeError removes it."""
    try:
        partial.unlink(missing_ok=True)  # it may be a link to a file elsewhere
        with partial.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # a full disk needs the space
        cause = error.__context__  # torch.save hides a full disk behind its own error
        raise cause if isinstance(cause, OSError) else error from None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content: readers see the old content or the new one, never a part."""
    replace_all({path: text.encode()})


def replace_all(contents: Mapping[Path, bytes]) -> None:
    """Write all new files to the disk, then replace the old ones: none if a write fails."""
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
    """Make a folder under runs_dir, and check that it is writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write in {folder}")
    except OSError as error:
        raise UserError(f"runs_dir: {folder} cannot be made ({error.strerror or error})") from None


def output_folder(output: object) -> Path:
    """The folder that the setting ``output`` names. It need not exist."""
    if not isinstance(output, str) or not output or Path(output).is_file():
        raise ConfigError("output", output, "it must be the name of a folder")
    return Path(output)


def check_can_be_made(folder: Path) -> None:
    """Check that a folder of runs_dir exists or can be made, without making it."""
    runs_dir = folder.parent
    try:
        if not folder.is_dir():  # os.access is no test: root seems to have every permission
            existing = next(p for p in (runs_dir, *runs_dir.parents) if os.path.lexists(p))
            with tempfile.TemporaryDirectory(prefix=".trial-", dir=existing):
                pass
    except OSError as error:
        allowed = f"it cannot be made or written in ({error.strerror or error})"
        raise ConfigError("runs_dir", runs_dir, f"{allowed}; name a folder that can be") from None


def refuse_links(folder: Path) -> None:
    """Refuse links in a run folder: writing through one would change a file outside the folder."""
    for entry in folder.iterdir():
        status = entry.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise UserError(f"{entry} is a link; a run folder may have none: remove it")
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise UserError(f"{entry} is neither a regular file nor a folder; remove it")
        if entry.name in EXTENDED and status.st_nlink > 1:
            raise UserError(
                f"{entry} is a hard link: the same file has a second name, and writing would change"
                " both; put a copy in its place"
            )
