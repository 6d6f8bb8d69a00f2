"""Arrays are found once for the same files, and never taken from a damaged copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import Trap

from igo.data.cache import digest, kept

IMAGES = np.arange(3 * 4096, dtype=np.uint8).reshape(3, 4096)


class Reader:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        return {"images": IMAGES, "labels": np.array([2, 0, 1])}


def check(arrays: Mapping[str, Any]) -> None:
    np.testing.assert_array_equal(arrays["images"], IMAGES)
    np.testing.assert_array_equal(arrays["labels"], [2, 0, 1])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def pickled(path: Path) -> None:
    np.savez(path, images=np.array([Trap(path.with_name("ran"))], dtype=object), labels=[0])


@pytest.mark.parametrize("damage", [cut, flip, pickled, Path.unlink])
def test_made_once_and_again_only_if_it_is_damaged(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    read, file = Reader(), tmp_path / "cache" / "kept.npz"
    for _ in range(3):
        check(kept(file, read))
    assert read.calls == 1
    damage(file)
    for _ in range(2):
        check(kept(file, read))
    assert read.calls == 2
    assert list(file.parent.iterdir()) == [file]


def test_a_file_of_the_same_size_and_time_is_another_file(tmp_path: Path) -> None:
    """As `cp -p` and tar make it."""
    source, other = tmp_path / "file", tmp_path / "other"
    source.write_text("a")
    other.write_text("b")
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns
    os.utime(other, ns=times)
    digests = [digest(source), digest(source)]
    other.replace(source)
    digests.append(digest(source))
    source.write_text("c")  # in its place
    os.utime(source, ns=times)
    digests.append(digest(source))
    assert digests[0] == digests[1]
    assert len({*digests}) == 3


def test_where_nothing_can_be_written_reading_goes_on(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    check(kept(tmp_path / "cache" / "kept.npz", Reader()))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
