"""The package's folders, reading files of runs, and writing files whole or not at all.

conf/ and launch/ are at the top of a clone, and inside an installed package: in a clone, links in
the package lead to them; a wheel has the folders in place of the links.
"""

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import IO, Any

from igo.ground.errors import Damaged, Outside, first_line, require

PACKAGE = Path(__file__).parents[1]
CONF = (PACKAGE / "conf").resolve()  # Hydra's groups
LAUNCH = (PACKAGE / "launch").resolve()  # Hydra's groups of sweeps
LEFT = "it is left as it is. fresh=true starts over"  # said of a damaged file of a run
Record = dict[str, Any]  # named values, as of a line of metrics.jsonl or of status.json
# Kinds of values in JSON, see ``fits``; null stands for what is not known.
TEXT, NUMBER, OBJECT = (str, NoneType), (float, int, NoneType), (dict, NoneType)
BOUNDS = {float: math.inf, int: 2**63}  # what the size of a number is below: tables have 64 bits


def read_bytes(path: Path) -> bytes:
    """The content of a run's file.

    Raises:
        FileNotFoundError: there is none.
        Outside: the file cannot be read. FIFOs and devices are refused too: reading them might
            never return. So is a link, which may lead out of the folder.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError("it is no file")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise Outside(
            f"{path} cannot be read ({error.strerror or error}); it may be whole, so it is left as"
            " it is. Once it can be read, the same command continues; fresh=true starts over"
        ) from None


def read_json(path: Path, kind: Record) -> Record:
    """The object of a kind in a run's JSON file, empty where there is no file.

    Raises:
        Damaged: the file holds anything else.
    """
    try:
        with damaged(path):
            return parsed(read_bytes(path), kind)
    except (FileNotFoundError, NotADirectoryError):
        return {}


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turn what a parser raises in the body, which reads a run's file, into one line."""
    try:
        yield
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise Damaged(f"{path} is damaged ({first_line(error)}); {LEFT}") from None


def parsed(text: bytes, kind: Record, others: Any = None) -> Record:
    """The JSON object in a text.

    Raises:
        ValueError: it is not of the kind, or with ``others`` an entry is not of this kind.
    """
    content: Record = json.loads(text)
    if not fits(content, kind) or (others and not fits([*content.values()], [others])):
        raise ValueError("an entry is of a wrong kind")
    return content


def fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a kind, and each number in it finite and of 64 bits.

    A kind is a tuple of types; a list of one kind, for lists of it and for null; or a dictionary,
    for objects whose entries of these names are of these kinds. An entry that lacks is as null.
    """
    if isinstance(kind, dict):
        inner = kind.items()
        return type(value) is dict and all(fits(value.get(name), its) for name, its in inner)
    if isinstance(kind, list):
        return value is None or (type(value) is list and all(fits(x, kind[0]) for x in value))
    bound = BOUNDS.get(type(value))
    return type(value) in kind and (bound is None or abs(value) < bound)


@contextmanager
def durable(path: Path) -> Iterator[IO[bytes]]:
    """Replace a file by what the body writes, once that is on the disk; or leave the old one."""
    # In the same folder, because a rename is atomic only within one file system.
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        # `x` follows no link that somebody else may have put there.
        with partial.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)  # a full disk needs the space
        cause = error.__context__  # torch.save hides a full disk behind its own error
        raise cause if isinstance(cause, OSError) else error from None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content: readers see the old content or the new one, never a part."""
    with durable(path) as file:
        file.write(text.encode())


def replace_all(contents: Mapping[Path, bytes]) -> None:
    """Write all new files to the disk, then replace the old ones: none if a write fails."""
    with ExitStack() as replaced:
        for path, data in contents.items():
            file = replaced.enter_context(durable(path))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def writing(setting: str, folder: Path) -> Iterator[None]:
    """Turn an OSError in the body, which writes into the folder of a setting, into one line."""
    try:
        yield
    except OSError as error:
        raise Outside(
            f"{setting}: {folder} cannot be written in ({error.strerror or error}); once it can,"
            " the same command continues, a run after its last complete epoch"
        ) from error


def write_output(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files of a report or a table, or none; make their folders."""
    with writing("output", folder):
        for place in {folder, *((folder / name).parent for name in contents)}:
            place.mkdir(parents=True, exist_ok=True)
        replace_all({folder / name: data for name, data in contents.items()})


def output_folder(output: object) -> Path:
    """The folder that the setting ``output`` names. It need not exist."""
    is_name = isinstance(output, str) and output != "" and not Path(output).is_file()
    require(is_name, "output", output, "it must be the name of a folder")
    return Path(str(output))
