"""The records that the study is made of: run folders, or the archives in results/records."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from igo.config.schema import Config
from igo.errors import UserError
from igo.files import Record
from igo.paths import CONF
from igo.runs.folder import RunFolder
from igo.sweep.jobs import Composer
from lab.study.written import ROOT

RECORDS = ROOT / "results" / "records"
# after.json: see lab.study.after; sharpness.json: of `igo sharpness`
KEPT = ("config.yaml", "status.json", "metrics.jsonl", "after.json", "sharpness.json")
SHARPNESS = ("largest_eigenvalue", "trace")


@dataclass(frozen=True)
class Run:
    """A finished run's files, by their names."""

    name: str
    files: dict[str, str]

    def __post_init__(self) -> None:
        """Hold the files against the digests that the run wrote into status.json.

        Raises:
            UserError: one was changed since.
        """
        written = self.status.get("sha256") or {}
        for name in written.keys() & self.files.keys():
            if hashlib.sha256(self.files[name].encode()).hexdigest() != written[name]:
                raise UserError(f"{self.name}: {name} is not what the run wrote (its SHA-256)")

    @cached_property
    def epochs(self) -> list[Record]:
        """An entry an epoch."""
        return [json.loads(line) for line in self.files["metrics.jsonl"].splitlines()]

    @cached_property
    def status(self) -> dict[str, Any]:
        """How it was run."""
        return dict(json.loads(self.files["status.json"]))

    @cached_property
    def after(self) -> dict[str, float]:
        """What was measured where it ended; nothing where nothing was."""
        found = dict(json.loads(self.files.get("after.json", "{}")))
        sharpness = json.loads(self.files.get("sharpness.json", "{}"))
        return found | {k: v for k, v in sharpness.items() if k in SHARPNESS}


def of_folders(runs_dir: Path) -> dict[str, Run]:
    """The finished runs of a folder, by name."""
    found = {}
    for folder in sorted(path.parent for path in runs_dir.glob("*/metrics.jsonl")):
        files = {name: (folder / name).read_text() for name in KEPT if (folder / name).is_file()}
        run = Run(folder.name, files)
        if run.status.get("state") == "finished":
            found[run.name] = run
    return found


def of_archives(folder: Path = RECORDS, pattern: str = "*.tar.xz") -> dict[str, Run]:
    """The runs of all archives, or of those that the pattern names, by name."""
    files: dict[str, dict[str, str]] = {}
    for archive in sorted(folder.glob(pattern)):
        with tarfile.open(archive) as tar:
            for member in tar:
                run, _, name = member.name.partition("/")
                content = tar.extractfile(member)
                if content is not None:
                    files.setdefault(run, {})[name] = content.read().decode()
    return {name: Run(name, own) for name, own in files.items()}


def path_of_archive(sweep: str) -> Path:
    """Where the records of a sweep are."""
    return RECORDS / f"{sweep}.tar.xz"


def write_archive(path: Path, runs: Iterable[Run]) -> None:
    """Runs as RUN/FILE in a tar.xz whose bytes depend on the runs alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with tarfile.open(partial, "w:xz") as tar:
        for run in sorted(runs, key=lambda one: one.name):
            for name in sorted(run.files):
                data = run.files[name].encode()
                entry = tarfile.TarInfo(f"{run.name}/{name}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    partial.replace(path)


@cache
def name_of(experiment: str, arm: tuple[tuple[str, Any], ...], seed: int) -> str:
    """The name of the run that these settings and this seed stand for."""
    return RunFolder(replace(_config(experiment, arm), seed=seed)).path.name


@cache
def _config(experiment: str, arm: tuple[tuple[str, Any], ...]) -> Config:
    """Composed once for all seeds, which change nothing else in it."""
    settings = {"experiment": experiment, **dict(arm)}
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return _composer().job([f"{name}={value}" for name, value in settings.items()]).config


@cache
def _composer() -> Composer:
    """One for all, which composes each choice of groups once."""
    return Composer("config")
