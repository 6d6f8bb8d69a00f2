"""One way of a study: jobs in order, a record for each as it ends, whole seeds in an archive.

Processes that are started for the same study share its jobs. Each holds the lock of the job that it
works on, which the system frees where a process is killed. A result is shown by no process.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import lzma
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igo.ground.files import durable, write_atomically
from igo.runs import manifest
from igo.train.machine import cpu_name
from lab.study.records import RECORDS, RUNS

Job = dict[str, Any]  # settings of a run, among them "arm" and "seed"
Record = dict[str, Any]  # a run's "job", where and when it ran, and what it came to
Runs = Mapping[str, Record]  # by the key of the job
Scores = dict[float, list[float] | None]  # seed by seed, by a setting; None where runs are missing
WAIT = 10  # seconds, where other processes have the jobs that are left


def key(job: Job) -> str:
    """The name of a job, and of the file of its record."""
    return ", ".join(f"{name} {setting}" for name, setting in job.items())


def search(grid: Iterable[float], factor: float, scores: Callable[[float], Any]) -> Scores:
    """The scores of a grid; a best at an edge adds the setting beyond it, by this factor."""
    by_setting: Scores = {setting: scores(setting) for setting in grid}
    while None not in by_setting.values():
        chosen, edges = best(by_setting), {min(by_setting): 1 / factor, max(by_setting): factor}
        if chosen not in edges:
            break
        by_setting[chosen * edges[chosen]] = scores(chosen * edges[chosen])
    return dict(sorted(by_setting.items()))


def best(scores: Scores) -> float | None:
    """The setting of the highest mean score; None while runs are missing."""
    if None in scores.values():
        return None
    return max(scores, key=lambda setting: np.mean(scores[setting] or np.nan))


@dataclass(frozen=True)
class Study:
    """A study.

    ``jobs`` gives all jobs that can be named, in order: what a tuning chooses is named after it.
    ``train`` takes a job to its result; both see the records so far. ``seeds`` are judged. ``arm``
    is the part of a job by which a page names its arm.
    """

    name: str
    jobs: Callable[[Runs], Iterator[Job]]
    train: Callable[[Job, Runs], Record]
    seeds: Sequence[int]
    arm: Callable[[Job], Any] = itemgetter("arm")

    @property
    def folder(self) -> Path:
        """Of the records, until they are archived."""
        return RUNS / self.name

    @property
    def file(self) -> Path:
        """The archive."""
        return RECORDS / f"{self.name}.jsonl.xz"

    def archived(self) -> dict[str, Record]:
        """The records of the archive."""
        return _by_key(lzma.open(self.file, "rt")) if self.file.is_file() else {}

    def read(self) -> dict[str, Record]:
        """All records, of the archive and of the folder."""
        files = sorted(self.folder.glob("*.json"))
        return self.archived() | _by_key(file.read_text() for file in files)

    def missing(self, runs: Runs) -> list[Job]:
        """The jobs that have no record."""
        return [job for job in self.jobs(runs) if key(job) not in runs]

    def run(self, _: Sequence[str] = ()) -> None:
        """Do the jobs that are missing, as long as there are any; started once for each core."""
        torch.set_num_threads(1)
        self.folder.mkdir(parents=True, exist_ok=True)
        while jobs := self.missing(runs := self.read()):
            if not any(self._done(job, runs) for job in jobs):
                time.sleep(WAIT)

    def _done(self, job: Job, runs: Runs) -> bool:
        """Do a job, unless another process has it or has done it."""
        file = self.folder / f"{key(job)}.json"
        with (self.folder / f".{key(job)}.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if not file.is_file():
                started = time.process_time()
                record = {"job": job, **provenance(), **self.train(job, runs)}
                record["cpu_seconds"] = round(time.process_time() - started, 1)
                write_atomically(file, json.dumps(record) + "\n")
                print(f"{key(job)}: done", flush=True)
        return True

    def whole_seeds(self, runs: Runs) -> dict[int, list[Record]]:
        """By seed the records of those whose jobs are all done, on machines of one kind."""
        of_seeds: dict[int, list[Record | None]] = {}
        for job in self.jobs(runs):
            if job["seed"] in self.seeds:
                of_seeds.setdefault(job["seed"], []).append(runs.get(key(job)))
        whole = {}
        for seed, found in of_seeds.items():
            records = [record for record in found if record is not None]
            kinds = {(record["cpu"], record["torch"]) for record in records}
            if len(records) == len(found) and len(kinds) == 1:
                whole[seed] = records
        return whole

    def arms(self, runs: Runs) -> dict[Any, list[Record]]:
        """By arm the records of the whole seeds, from the first one on without a gap."""
        whole, by_arm = self.whole_seeds(runs), dict[Any, list[Record]]()
        for seed in itertools.takewhile(whole.__contains__, self.seeds):
            for record in whole[seed]:
                by_arm.setdefault(self.arm(record["job"]), []).append(record)
        return by_arm

    def archive(self) -> int:
        """Write the records of the tuning and of whole seeds; return their number."""
        runs = self.read()
        names = {key(job): None for job in self.jobs(runs) if job["seed"] not in self.seeds}
        kept = [runs[name] for name in names if name in runs]
        kept += [record for seed in self.whole_seeds(runs).values() for record in seed]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        with durable(self.file) as file:
            file.write(lzma.compress(text.encode()))
        return len(kept)


def _by_key(texts: Iterable[str]) -> dict[str, Record]:
    return {key(record["job"]): record for record in map(json.loads, texts)}


def provenance() -> Record:
    """The code, the time and the machine of a run that starts now."""
    changes = manifest.changes()
    return {
        "commit": manifest.commit(), "time": manifest.now(),
        "changes": hashlib.sha256(changes).hexdigest() if changes else None,
        "cpu": f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip
