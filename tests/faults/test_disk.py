"""Disks that are full, read-only or broken."""

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TINY, Ended
from forked import Death, forge
from resumed import assert_continues, assert_whole, start

pytestmark = pytest.mark.faults


@contextmanager
def small_disk(place: Path, kib: int) -> Iterator[Path]:
    """A file system of its own at place/runs; skips the test where none can be mounted."""
    disk = place / "runs"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(disk)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root, and the right to")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def assert_says_so(process: Ended, reason: str) -> None:
    """One line names the folder and what is wrong; the exit code is that of a user's error."""
    assert re.fullmatch(rf"error: .*runs.*{reason}.*", process.error())


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    """Filled up to some room for the run, from none to nearly enough; then made free."""
    stopped, kind = 0, "sgd"
    with small_disk(tmp_path, 600) as disk:
        ballast = disk / "ballast"
        for room in range(0, 600, 10):
            ballast.unlink(missing_ok=True)
            free = os.statvfs(disk)
            ballast.write_bytes(b"\0" * max(free.f_bavail * free.f_frsize - room * 1024, 0))
            process = start(tmp_path, kind)
            if process.returncode == 0:
                break
            stopped += 1
            assert_says_so(process, "No space left on device")
            if stopped % 4 == 0:  # the others go on from what the one before has left
                ballast.unlink()
                assert_continues(tmp_path, kind)
                subprocess.run(["rm", "-r", *disk.iterdir()], check=True)
        ballast.unlink(missing_ok=True)
        assert_continues(tmp_path, kind)
    assert stopped >= 4


def test_a_disk_too_full_for_wandbs_log_is_said_in_two_lines(tmp_path: Path) -> None:
    """W&B's log may meet the end of the disk before a run's own files do, or after them."""
    warnings = []
    for kib in range(12, 44, 4):  # a page more each time
        place = tmp_path / str(kib)
        place.mkdir()
        with small_disk(place, kib):
            *lines, error = forge.run(*TINY, folder=place).stderr.splitlines()
        assert error.startswith("error: ")
        warnings += lines
    assert warnings, "W&B's log was the first to be cut off on some disk"
    for warning in warnings:
        assert warning.startswith("warning: wandb failed ([Errno 28] No space left on device)")


def test_a_disk_breaks_at_any_write(tmp_path: Path) -> None:
    """What the kernel answers to fsync, at the first call, the second, and so on."""
    broken = 0
    for call in range(1, 60):
        place, number = tmp_path / str(call), (errno.EIO, errno.EROFS, errno.EDQUOT)[call % 3]
        error = OSError(number, os.strerror(number))
        process = start(place, "sgd", Death("os.fsync", call, error=error))
        if process.returncode == 0:
            assert_whole(place, "sgd")
            break
        broken += 1
        assert_says_so(process, str(error.strerror))
        if call % 4 == 0:
            assert_continues(place, "sgd")
    assert broken >= 12
