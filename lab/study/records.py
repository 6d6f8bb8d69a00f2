"""The records of runs, in run folders or in the archives of results/records."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from igo.config.schema import Config
from igo.ground.files import CONF, Record
from igo.runs.folder import path_of
from igo.sweep.jobs import Composer

ROOT = Path(__file__).parents[2]
RECORDS, RUNS = ROOT / "results" / "records", ROOT / "runs"
REVERSED = RUNS / ".reversed"  # runs whose stages come in reversed order
TURNED = "-reversed"  # at the end of such a run's name
KEPT = ("config.yaml", "status.json", "metrics.jsonl", "after.json")  # after: see lab.study.ends


Arm = dict[str, Any]  # settings of a run; with "order: reversed" its stages are reversed


@dataclass(frozen=True)
class Run:
    """A finished run's files, by their names."""

    name: str
    files: dict[str, str]

    @cached_property
    def epochs(self) -> list[Record]:
        """The records, one for each epoch."""
        return [json.loads(line) for line in self.files["metrics.jsonl"].splitlines()]

    @cached_property
    def status(self) -> dict[str, Any]:
        """The content of status.json."""
        return dict(json.loads(self.files["status.json"]))

    @cached_property
    def after(self) -> dict[str, float]:
        """The measurements at the end of the run, by name; may be empty."""
        return dict(json.loads(self.files.get("after.json", "{}")))

    @property
    def machine(self) -> tuple[str, ...]:
        """What else than the seed the bits of a run depend on: CPU, its instructions, PyTorch."""
        status = self.status
        hardware, versions = status["hardware"], status["versions"]
        return hardware["cpu"], hardware["instructions"], versions["torch"]


def of_study() -> dict[str, Run]:
    """The finished runs in RUNS and in REVERSED, by name."""
    turned = {
        f"{name}{TURNED}": replace(run, name=f"{name}{TURNED}")
        for name, run in of_folders(REVERSED).items()
    }
    return of_folders(RUNS) | turned


def of_folders(runs_dir: Path, states: Container[str] = ("finished",)) -> dict[str, Run]:
    """The runs of a folder that are in one of these states, by name."""
    runs = {}
    for folder in sorted(path.parent for path in runs_dir.glob("*/status.json")):
        files = {name: (folder / name).read_text() for name in KEPT if (folder / name).is_file()}
        run = Run(folder.name, files)
        if run.status.get("state") in states:
            runs[run.name] = run
    return runs


def of_archives(folder: Path = RECORDS, pattern: str = "*.tar.xz") -> dict[str, Run]:
    """The runs of the archives, by name."""
    files: dict[str, dict[str, str]] = {}
    for archive in sorted(folder.glob(pattern)):
        with tarfile.open(archive) as tar:
            for member in tar:
                folder_name, _, name = member.name.partition("/")
                content = tar.extractfile(member)
                if content is not None:
                    files.setdefault(folder_name, {})[name] = content.read().decode()
    return {name: Run(name, contents) for name, contents in files.items()}


def write_archive(path: Path, runs: Iterable[Run]) -> None:
    """Write the runs as RUN/FILE into a tar.xz. Its bytes depend on the runs alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with tarfile.open(partial, "w:xz") as tar:
        for run in sorted(runs, key=lambda run: run.name):
            for name in sorted(run.files):
                data = run.files[name].encode()
                entry = tarfile.TarInfo(f"{run.name}/{name}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    partial.replace(path)


def reverses(arm: Arm) -> bool:
    """Whether the arm has the stages of its schedule in reversed order."""
    return arm.get("order") == "reversed"


def name_of(experiment: str, arm: Arm, seed: int) -> str:
    """The name of the run with these settings and this seed."""
    name = _name(_settings(experiment, arm, seed))
    return f"{name}{TURNED}" if reverses(arm) else name


def config(experiment: str, arm: Arm, seed: int) -> Config:
    """The configuration of these settings and this seed."""
    return _config(_settings(experiment, arm, seed))


def _settings(experiment: str, arm: Arm, seed: int) -> tuple[tuple[str, Any], ...]:
    settings = {name: value for name, value in arm.items() if name != "order"}
    return tuple({"experiment": experiment, **settings, "seed": seed}.items())


@cache
def _name(settings: tuple[tuple[str, Any], ...]) -> str:
    return path_of(_config(settings)).name


@cache
def _config(settings: tuple[tuple[str, Any], ...]) -> Config:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return _composer().job([f"{name}={value}" for name, value in settings]).config


@cache
def _composer() -> Composer:
    """The composer of all runs; it composes each choice of groups once."""
    return Composer("config")
