"""The manifest of a run: its plan, data, code, versions and hardware. It is in status.json.

A run that goes on, or that has finished, must have the data and the plan that are here. Other code,
versions or hardware are said in one line.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from igo.config import own
from igo.config.schema import Config, calls_of
from igo.data.identity import Identity, identify
from igo.ground.errors import UserError
from igo.ground.files import PACKAGE, Record
from igo.plans.plan import Plan
from igo.runs.folder import RunFolder

COMPUTING = ("torch", "torchvision", "timm", "numpy")  # Their versions may change a result.
PACKAGES = ("igo", *COMPUTING, "hydra-core", "omegaconf", "wandb")
MACHINE = ("device", "precision", "cpu", "instructions", "gpu", "ranks")
# These entries of status.json are of the run. All others are of its newest start: ``earlier``
# keeps them when the next start replaces them.
OF_RUN = (
    "run",
    "wandb_id",
    "seconds",
    "earlier",
    "state",
    "signal",
    "error",
    "epochs",
    "seal",
    "seals",
)
LONGEST_DIFF = 2**20  # bytes of uncommitted changes that a run keeps
identified = cache(identify)  # A sweep asks which data are here for each of its finished runs.
ROOMS = ("config", "data", "ground", "loop", "noise", "plans", "train")  # Losses depend on them.


def of_start(config: Config, plan: Plan, data: Identity, hardware: Record) -> Record:
    """The manifest of a run that this process trains: what each start has in status.json.

    ``hardware`` has the facts of this machine, see ``train.machine.hardware``. The entry
    ``noise_law`` says which formula gives δ for the run's optimizer, or else why none does.
    """
    return {
        "command": command(),
        "directory": str(Path.cwd()),
        "commit": commit(),
        "code": code(),
        "own_code": own_code(config),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "host": platform.node(),
        "pid": os.getpid(),
        "plan_identity": plan.identity,
        "hardware": hardware,
        "data": asdict(data),
        "noise_law": {"delta": config.optimizer.formula, "why_null": config.optimizer.why_null},
    }


def check_same_plan(folder: RunFolder, plan: Plan, config: Config) -> None:
    """Raise a UserError if a run has another plan in its status.json than this code makes.

    Without status.json nothing can be compared.
    """
    status = folder.status()
    identity = status.get("plan_identity")
    if not identity or plan.is_that_of(identity):
        return
    # The cause is other code or versions. If neither differs, somebody changed the record.
    raise UserError(
        f"{folder.path} has another plan than this version of igo makes"
        f" ({differences(status, config) or 'its record was changed'}). Continue with its commit,"
        f" {status.get('commit')}, or train it anew: in the same folder with fresh=true, or in"
        " another runs_dir"
    )


def check_same_data(folder: RunFolder, data: Identity) -> None:
    """Raise a UserError if a run was trained on other data than those here.

    Without status.json nothing can be compared.
    """
    record = folder.status().get("data")
    if not record or record["fingerprint"] == data.fingerprint:
        return
    setting = {"arrays": "dataset.file", "folder": "dataset.root"}.get(data.name, "data_dir")
    raise UserError(
        f"{folder.path} was trained on other data: {Identity(**record)}. The data here are {data}."
        f" Set {setting} to the place of the run's data, or train on these: in the same folder with"
        " fresh=true, or in another runs_dir"
    )


def differences(status: Record, config: Config, hardware: Record | None = None) -> str:
    """How code, versions and hardware of a run differ from those here; empty if they do not.

    The text is such as ``torch 2.8.0, now 2.9.0; cpu …``. All starts of the run are compared.

    Args:
        status: the content of the run's status.json.
        config: the run's configuration, as this process trains or loads it. Of the user's own code
            the files that the configuration names are compared, and not those that the record
            names: to look for a file imports it, and a record may be a stranger's.
        hardware: the facts of this machine; None = they are not compared.
    """
    facts = {"code": code(), **own_code(config), **{name: _version(name) for name in COMPUTING}}
    if hardware:
        facts |= {name: hardware.get(name) for name in MACHINE}
    lines = []
    for start in (*status.get("earlier", ()), status):
        # A start has the entry "code", and the other facts within three entries.
        record = dict(start)
        for entry in ("own_code", "versions", "hardware"):
            record |= start.get(entry, {})
        for name, fact in facts.items():
            # An earlier version of igo may not have recorded a fact. Then nothing is said.
            if name in record and record[name] != fact:
                lines.append(f"{name} {record[name]}, now {fact}")
    return "; ".join(dict.fromkeys(lines))  # Starts under the same code give the same lines.


def earlier(status: Record, epoch: int) -> list[Record]:
    """The manifests of the starts, of all in status.json, that trained an epoch up to this one.

    A start began after the epoch ``after_epoch``, so it trained the next one, or none at all. What
    it did not finish a later start trained again.
    """
    newest = {name: entry for name, entry in status.items() if name not in OF_RUN}
    starts = [*status.get("earlier", ()), newest]
    return [start for start in starts if start.get("after_epoch", 0) < epoch]


def command() -> str:
    """The command that started this process, so that it can be typed again."""
    program = [Path(sys.executable).name, sys.argv[0]]
    if sys.argv[0].startswith("igo "):  # igo.__main__ puts `igo train` there, as it was typed.
        program = sys.argv[0].split()
    return shlex.join([*program, *sys.argv[1:]])


@cache  # A sweep asks before its first run begins: the code may change while it trains.
def commit() -> str | None:
    """The project's commit in 40 digits, with ``+changes`` where the working tree differs from it.

    None where there is no git or no commit.
    """
    # Every tag is excluded, so that git describes the commit by its digits alone.
    name = _git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes")
    return name.decode().strip() or None


@cache  # See ``commit``.
def changes() -> bytes:
    """What the working tree changes in its commit, for ``git apply``; empty if it is too long."""
    # `git apply` takes git's own form, and a user's git may be set to show changes by other tools.
    patch = _git("diff", "--binary", "--no-ext-diff", "--no-textconv", "HEAD")
    return patch if len(patch) <= LONGEST_DIFF else b""


def _git(*words: str) -> bytes:
    """What git prints of the project; nothing where there is no git or no commit."""
    if shutil.which("git") is None:
        return b""
    command = ["git", "-C", str(PACKAGE), *words]
    return subprocess.run(command, capture_output=True, check=False).stdout


@cache
def code() -> str:
    """Ten hexadecimal digits, the start of the SHA-256 of the sources in ROOMS as they are now."""
    digest = hashlib.sha256()
    for room in ROOMS:
        for file in sorted((PACKAGE / room).rglob("*.py")):
            name = str(file.relative_to(PACKAGE)).encode()
            # The zero bytes keep apart where a name or a source ends.
            digest.update(name + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:10]


def own_code(config: Config) -> dict[str, str | None]:
    """The calls of the user's own model, optimizer and profile, each with digits of its file.

    The ten digits are of the file's SHA-256; None = the file is not found.
    """
    return {call: own.file_digest(call) for call in calls_of(config).values()}


def now() -> str:
    """The local time, with its offset, such as 2025-01-02T03:04:05+0000."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


@cache
def _version(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:  # igo itself, whose checkout may be on the path, too
        return None
