"""The manifest of a run: its plan, data, code, versions and hardware. It is in status.json.

A run that goes on, or that has finished, must have the data and the plan that are here. Other code,
versions or hardware are said in one line.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igo.config.schema import Config, place_of
from igo.data.identity import Identity, identify
from igo.data.source import Missing
from igo.ground.errors import UserError
from igo.ground.files import Record
from igo.ground.paths import PACKAGE
from igo.method.plan import Plan

if TYPE_CHECKING:  # torch
    from igo.train.state import Training

PACKAGES = ("igo", "torch", "torchvision", "timm", "numpy", "hydra-core", "omegaconf", "wandb")
COMPUTING = ("torch", "torchvision", "timm", "numpy")  # those whose version may change a result
MACHINE = ("device", "precision", "cpu", "instructions", "gpu", "ranks")
ROOMS = ("ground", "noise", "method", "data", "config", "train")  # that the losses depend on


def of_process() -> Record:
    """Command, directory, commit, versions and machine; needs no torch."""
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


def of_training(training: Training) -> Record:
    """The whole manifest."""
    from igo.train import engine

    optimizer = training.config.optimizer
    return {
        **of_process(),
        "plan": plan_digest(training.plan),
        "hardware": engine.hardware(training.engine),
        "data": asdict(training.identity) if training.identity else None,
        "noise_law": {"delta": optimizer.formula, "why_null": optimizer.why_null},
    }


def plan_digest(plan: Plan) -> str:
    """Ten hexadecimal digits of a plan. Machines may differ in the last digits of a float."""
    stages = [
        f"{value:.9g}" if isinstance(value, float) else value
        for stage in plan.stages for value in asdict(stage).values()
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(stages).encode()).hexdigest()[:10]


def check_plan(place: Path, recorded: Record, plan: Plan) -> None:
    """Raise a UserError if a run's recorded plan is another one than this code makes.

    Args:
        place: the run's folder.
        recorded: the content of its status.json.
        plan: the plan of its configuration, made here.
    """
    if recorded.get("plan") not in (None, plan_digest(plan)):
        raise UserError(
            f"{place} has another plan than this version of igo makes"
            f" ({other_code(recorded) or 'status.json was changed'}). Continue with that version,"
            " or train it anew: in the same folder with fresh=true, or in another runs_dir"
        )


def check_data(place: Path, recorded: Record, here: Identity) -> None:
    """Raise a UserError if a run was trained on other data than those here, as ``check_plan``."""
    data = recorded.get("data")
    if not isinstance(data, Mapping) or data.get("fingerprint") == here.fingerprint:
        return
    before = Identity(**{field.name: data.get(field.name, "?") for field in fields(Identity)})
    setting = {"arrays": "dataset.file", "folder": "dataset.root"}.get(here.name, "data_dir")
    raise UserError(
        f"{place} was trained on other data: {before}. The data here are {here}. Set {setting} to"
        " the place of the run's data, or train on these: in the same folder with fresh=true, or in"
        " another runs_dir"
    )


def other_code(recorded: Record) -> str:
    """How code and versions of a record differ from those here; empty if they do not."""
    differences = []
    if recorded.get("code") not in (None, code()):
        now = _short(commit())
        differences.append(f"commit {_short(recorded.get('commit'))}, now {now}")
    before = recorded.get("versions") or {}
    for name in COMPUTING:
        if name in before and before[name] != _version(name):
            differences.append(f"{name} {before[name]}, now {_version(name)}")
    return "; ".join(differences)


def other_machine(recorded: Record, here: Record) -> str:
    """How the hardware of a record differs from that of the manifest ``here``."""
    before, now = recorded.get("hardware") or {}, here["hardware"]
    return "; ".join(
        f"{name} {before[name]}, now {now.get(name)}"
        for name in MACHINE
        if name in before and before[name] != now.get(name)
    )


class Comparison:
    """Compares the data of finished runs with the data here, and reads each data set once."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._identities: dict[Any, Identity | None] = {}

    def finished(self, folder: Path, recorded: Record, config: Config) -> None:
        """Raise a UserError if a finished run was trained on other data than the data here.

        Warns if that is unknown: the data are not here, or the record does not say.
        """
        if not isinstance(recorded.get("data"), Mapping):
            self._warn(f"{folder} does not say which data it was trained on: not compared")
        elif here := self._here(config):
            check_data(folder, recorded, here)

    def _here(self, config: Config) -> Identity | None:
        place = place_of(config, download=False)
        key = config.dataset.name, place
        if key not in self._identities:
            try:
                self._identities[key] = identify(config.dataset.name, place)
            except Missing as error:
                self._identities[key] = None
                self._warn(f"the data are not here, so they were not compared: {error}")
        return self._identities[key]


def command() -> str:
    """The command that started this process, so that it can be typed again."""
    program = [Path(sys.executable).name, sys.argv[0]]
    if sys.argv[0].startswith("igo "):  # see igo.__main__
        program = sys.argv[0].split()
    return shlex.join([*program, *sys.argv[1:]])


@cache  # a sweep asks before its first run begins: the code may change while it trains
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


@cache
def code() -> str:
    """Ten hexadecimal digits of the sources in ROOMS, committed or not."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE)
        if name.parts[0] in ROOMS:
            digest.update(str(name).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:10]


def now() -> str:
    """The local time, with its offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # igo itself is not installed where its checkout is on the path
        return None


def _short(name: str | None) -> str:
    return "unknown" if name is None else f"{name[:10]}{'+changes' * ('+' in name)}"
