"""What is found in files is found once, until the files are others."""

from __future__ import annotations

import os
from pathlib import Path

from igo.data.identity import remembered
from igo.data.readers import digest


def test_a_value_is_found_once_and_again_if_its_file_is_damaged(tmp_path: Path) -> None:
    found: list[int] = []

    def find() -> dict[str, object]:
        found.append(1)
        return {"mean": [0.5, 0.25], "n": 3}

    file = tmp_path / "cache" / "facts.json"
    for damage in (lambda: None, lambda: file.write_text("{"), file.unlink):
        for _ in range(2):
            assert remembered(file, find) == {"mean": [0.5, 0.25], "n": 3}
        damage()
    assert len(found) == 2
    unwritable = tmp_path / "a file"
    unwritable.write_text("")
    assert remembered(unwritable / "facts.json", find)["n"] == 3


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
