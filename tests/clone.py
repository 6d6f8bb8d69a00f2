"""A copy of the project in an empty folder, and what a person types there."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, clean_environment

LONGEST = 550.0  # seconds, below the time-out of a test


def copy_sources(place: Path) -> None:
    """Copy what git has, and uncommitted new files, into a folder."""
    if not (ROOT / ".git").exists():
        pytest.skip("this copy has no history")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.rstrip("\0").split("\0"):
        source, target = ROOT / name, place / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def clone(place: Path) -> Path:
    """The sources in a folder, whose .venv is this interpreter's."""
    copy_sources(place)
    (place / ".venv").symlink_to(sys.prefix)
    for purpose in ("train", "dev"):
        (place / f".ready-{purpose}").touch()  # newer than the locks: make installs nothing
    return place


def run(place: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in a clone, with its .venv active, without a display or a W&B key."""
    changes = {
        "MAKEFLAGS": "READY=.ready",  # Makefile's stamps; those of .venv belong to another clone
        "PATH": f"{place}/.venv/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(place / "src"),
        "HOME": str(place / "home"),
    }
    environment = clean_environment(**changes)
    of_make = (
        "MAKELEVEL",
        "MFLAGS",
        "MAKEOVERRIDES",
        "ARGS",
    )  # The make that runs the tests sets these.
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "COLUMNS", *of_make):
        environment.pop(name, None)
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=place,
        env=environment,
        text=True,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            out, error = process.communicate(timeout=LONGEST)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)
