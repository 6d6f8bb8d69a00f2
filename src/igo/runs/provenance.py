"""What status.json records of a start: all that is needed to repeat the run."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from igo.ground.paths import PACKAGE

PACKAGES = ("igo", "torch", "torchvision", "timm", "numpy", "hydra-core", "omegaconf", "wandb")
# Subpackages that the losses depend on
RESULT = ("ground", "noise", "method", "data", "config", "train")


def command() -> str:
    """The command that started this process, so that it can be typed again."""
    program = [Path(sys.executable).name, sys.argv[0]]
    if sys.argv[0].startswith("igo "):  # see igo.__main__
        program = sys.argv[0].split()
    return shlex.join([*program, *sys.argv[1:]])


def provenance() -> dict[str, Any]:
    """Command, directory, commit, versions and machine; config.yaml has the configuration."""
    return {
        "command": command(),
        "directory": str(Path.cwd()),
        "commit": commit(),
        "code": code(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "host": platform.node(),
        "pid": os.getpid(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # igo itself is not installed where its checkout is on the path
        return None


def commit() -> str | None:
    """The project's commit, with ``+changes`` where the working tree differs from it."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def code(*, all_rooms: bool = False) -> str:
    """Ten hexadecimal digits of the sources that can change a result, committed or not.

    These are RESULT; with ``all_rooms``, the whole package.
    """
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE)
        if all_rooms or name.parts[0] in RESULT:
            digest.update(str(name).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:10]


def now() -> str:
    """The local time, with its offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
