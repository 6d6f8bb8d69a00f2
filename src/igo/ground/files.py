"""The package's folders, reading files of runs, and writing files whole or not at all.

conf/ and launch/ are found inside the package. In a clone the package has links to these folders,
which are at the clone's top; a wheel has the folders in place of the links.
"""

import fcntl
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from igo.ground.errors import Damaged, Outside

PACKAGE = Path(__file__).parents[1]
CONF = (PACKAGE / "conf").resolve()  # Hydra's groups
LAUNCH = (PACKAGE / "launch").resolve()  # Hydra's groups of sweeps
Record = dict[str, Any]  # an object of JSON, such as a line of metrics.jsonl
# The absolute value of a number must be below its bound. Tables have numbers of 64 bits.
BOUNDS = {float: math.inf, int: 2**63}


def opened(path: Path, mode: str = "rb") -> IO[bytes]:
    """Open a file; no FIFO or device, which may never answer, and no link, which leads elsewhere.

    Raises:
        OSError: the path is no regular file, or the file is not there or cannot be opened.
    """
    with suppress(FileNotFoundError):  # With a mode such as "ab" the file is made by ``open``.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(f"{path.name} is no file")
    return path.open(mode)


def read_bytes(path: Path) -> bytes:
    """The content of a file that another program may have put there.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no file.
        Outside: the file cannot be read, or is no regular file, see ``opened``.
    """
    try:
        with opened(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise Outside(
            f"{path} cannot be read ({error.strerror or error}). Nothing was changed: mend that and"
            " type the same command"
        ) from None


def seal_of(content: bytes) -> str:
    """The SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def sealed(content: Record) -> Record:
    """An object of JSON with its ``seal``, the SHA-256 of its other entries.

    The entries are written anew for the seal, so the spaces in a file do not matter.
    """
    entries = {name: entry for name, entry in content.items() if name != "seal"}
    return {**entries, "seal": seal_of(json.dumps(entries, allow_nan=False).encode())}


def write_json(path: Path, content: Record) -> None:
    """Replace a file by an object of JSON and its seal."""
    write_atomically(path, json.dumps(sealed(content), indent=2) + "\n")


def read_json(path: Path) -> Record:
    """The object in a JSON file, with its ``seal``; empty where there is no file.

    Raises:
        Damaged: the file holds anything else, or is not as it was sealed.
    """
    try:
        with damaged(path):
            content: Record = json.loads(read_bytes(path))
            if content != sealed(content):
                raise ValueError("it was changed after it was written")
            return content
    except (FileNotFoundError, NotADirectoryError):
        return {}


@contextmanager
def damaged(path: Path, fault: str = "is damaged") -> Iterator[None]:
    """Turn what a parser raises in the body, which reads a file, into one line."""
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]  # A message of PyTorch's has several lines.
        raise Damaged(f"{path} {fault} ({reason or type(error).__name__})") from None


def fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a kind, and each number in it finite and of 64 bits.

    The kind ``(int, str)`` is a whole number or a text, and ``[kind]`` a list of values of a kind.
    """
    if isinstance(kind, list):
        return type(value) is list and all(fits(item, kind[0]) for item in value)
    # The type itself is compared, because by ``isinstance`` a bool is an int.
    bound = BOUNDS.get(type(value))  # None for a value that is no number, which has no bound.
    return type(value) in kind and (bound is None or abs(value) < bound)


@contextmanager
def durable(path: Path) -> Iterator[IO[bytes]]:
    """Replace a file by what the body writes, once that is on the disk; or leave the old file."""
    # This file is in the same folder, because a rename is atomic only within one file system.
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        # The mode `x` follows no link that somebody else may have put there.
        with partial.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)  # A full disk needs the space.
        cause = error.__context__  # torch.save hides a full disk behind its own error.
        raise cause if isinstance(cause, OSError) else error from None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content: readers see the old content or the new one, never a part."""
    with durable(path) as file:
        file.write(text.encode())


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder, and let one process at a time write into it, on a disk that has locks.

    Two processes would take each other's partial files away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def replace_all(contents: Mapping[Path, bytes]) -> None:
    """Write all new files to the disk, then replace the old files: none if a write fails."""
    with ExitStack() as replaced:
        for path, data in contents.items():
            file = replaced.enter_context(durable(path))
            file.write(data)
            # ``durable`` replaces a file when the outer ``with`` ends. Each file is on the disk
            # before the first of them is replaced.
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def writing(setting: str, folder: Path) -> Iterator[None]:
    """Turn an OSError in the body, which writes into the folder of a setting, into one line."""
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename or folder
        raise Outside(
            f"{setting}: {path} cannot be written ({error.strerror or error}); once it can, the"
            " same command continues"
        ) from error
