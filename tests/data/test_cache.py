"""Data sets are parsed once, never taken from a damaged copy, and shared between processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from igo.data import cache, readers
from igo.data.cache import Arrays, cached
from igo.data.source import Place

IMAGES = np.arange(3 * 4096, dtype=np.uint8).reshape(3, 4096)


class Reader:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Arrays:
        self.calls += 1
        return {"images": IMAGES, "labels": np.array([2, 0, 1])}


def check(arrays: Arrays) -> None:
    np.testing.assert_array_equal(arrays["images"], IMAGES)
    np.testing.assert_array_equal(arrays["labels"], [2, 0, 1])
    assert sorted(arrays) == ["images", "labels"]


def test_read_once_for_the_same_sources(tmp_path: Path) -> None:
    read, source = Reader(), tmp_path / "file"
    source.write_text("a")
    for _ in range(3):
        check(cached(tmp_path / "cache", "name", [source, "1.0"], read))
    assert read.calls == 1
    check(cached(tmp_path / "cache", "name", [source, "1.1"], read))
    assert read.calls == 2
    source.write_text("ab")
    check(cached(tmp_path / "cache", "name", [source, "1.1"], read))
    assert read.calls == 3


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", cache.CHECKSUMS])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_copy_is_remade(
    damage: Callable[[Path], None], file: str, tmp_path: Path
) -> None:
    read = Reader()
    cached(tmp_path, "name", [], read)
    (kept,) = tmp_path.iterdir()
    damage(kept / file)
    check(cached(tmp_path, "name", [], read))
    check(cached(tmp_path, "name", [], read))
    assert read.calls == 2
    assert list(tmp_path.iterdir()) == [kept]


def test_a_file_of_the_same_size_and_time_is_another_file(tmp_path: Path) -> None:
    """As `cp -p` and tar make it."""
    source, other, read = tmp_path / "file", tmp_path / "other", Reader()
    source.write_text("a")
    other.write_text("b")
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns
    os.utime(other, ns=times)
    cached(tmp_path / "cache", "name", [source], read)
    other.replace(source)
    cached(tmp_path / "cache", "name", [source], read)
    assert read.calls == 2
    source.write_text("c")  # in its place
    os.utime(source, ns=times)
    cached(tmp_path / "cache", "name", [source], read)
    assert read.calls == 3


def test_where_nothing_can_be_written_reading_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.write_text("a file, not a folder")
    read = Reader()
    for _ in range(2):
        check(cached(folder, "name", [], read))
    assert read.calls == 2
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_many_at_once_agree(tmp_path: Path) -> None:
    code = (
        "import sys, hashlib; from pathlib import Path; from igo.data import readers;"
        "from igo.data.source import Place;"
        "train, test = readers.read('digits', Place(Path(sys.argv[1])));"
        "print(hashlib.sha256(train.images.tobytes() + test.labels.tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert all(process.returncode == 0 for process in started)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_pages_are_the_files_own_until_written_to(tmp_path: Path) -> None:
    """Linux says of each mapping how much of it belongs to this process alone."""
    readers.read("digits", Place(tmp_path))
    train, _ = readers.read("digits", Place(tmp_path))
    assert isinstance(train.images, np.memmap)
    assert int(train.images.sum()) > 0  # all of it was touched
    assert copied_kilobytes("train_images.npy") == 0
    before = (next(tmp_path.glob("cache/*/train_images.npy"))).read_bytes()
    train.images[0] = 255
    assert copied_kilobytes("train_images.npy") > 0
    assert next(tmp_path.glob("cache/*/train_images.npy")).read_bytes() == before


def copied_kilobytes(name: str) -> int:
    entries = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    (mapping,) = (entry for entry in entries if entry.splitlines()[0].endswith(name))
    return sum(int(size) for size in re.findall(r"Anonymous: +(\d+) kB", mapping))
