"""One way of a study: jobs in order, a record for each as it ends, whole seeds in an archive.

Processes that are started for the same study share its jobs. Each holds the lock of the job that it
works on, which the system frees where a process is killed. A result is shown by no process.
"""

import fcntl
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

ROOT = Path(__file__).parents[2]
RECORDS, RUNS = ROOT / "results" / "records", ROOT / "runs"
Job = dict[str, Any]  # settings of a run, among them "arm" and "seed"
Record = dict[str, Any]  # a run's "job", where and when it ran, and what it came to
Runs = Mapping[str, Record]  # the records by the names of their jobs
Arms = Mapping[Any, Sequence[Record]]  # the records of each arm, seed by seed
WAIT = 10  # seconds, where other processes have the jobs that are left


def key(job: Job) -> str:
    """The name of a job, and of the file of its record."""
    return ", ".join(f"{name} {setting}" for name, setting in job.items())


@dataclass(frozen=True)
class Study:
    """A study.

    ``jobs`` gives in order all jobs that are known, from the records so far: the arms that a tuning
    chooses follow when the tuning has ended. ``train`` takes a job and the records so far to a
    result. Only ``seeds`` are judged; jobs of other seeds are the tuning. No page shows fewer seeds
    than the ``least``. ``arm`` is the part of a job by which a page names its arm. ``key`` names a
    job. ``old`` gives the records, by these names, of an archive that has another form.
    """

    name: str
    jobs: Callable[[Runs], Iterator[Job]]
    train: Callable[[Job, Runs], Record]
    seeds: Sequence[int]
    least: int
    arm: Callable[[Job], Any] = itemgetter("arm")
    key: Callable[[Job], str] = key
    old: Callable[[], Runs] = dict

    @property
    def folder(self) -> Path:
        """The folder of the records, until they are archived."""
        return RUNS / self.name

    def archived(self) -> dict[str, Record]:
        """The records of the archives."""
        return {**self.old(), **self._by_key(archive_of(self.name))}

    def _by_key(self, records: Iterable[Record]) -> dict[str, Record]:
        """The records by the names of their jobs."""
        return {self.key(record["job"]): record for record in records}

    def read(self) -> dict[str, Record]:
        """All records, of the archive and of the folder."""
        files = sorted(self.folder.glob("*.json"))
        return self.archived() | self._by_key(json.loads(file.read_text()) for file in files)

    def mean(self, jobs: Iterable[Job], runs: Runs, endpoint: str) -> float | None:
        """The mean of an endpoint over the records of these jobs; None while one has no record."""
        names = [self.key(job) for job in jobs]
        if not runs.keys() >= {*names}:
            return None
        return float(np.mean([runs[name][endpoint] for name in names]))

    def missing(self, runs: Runs) -> list[Job]:
        """The jobs that have no record."""
        return [job for job in self.jobs(runs) if self.key(job) not in runs]

    def run(self, _: Sequence[str] = ()) -> None:
        """Do the jobs that are missing, as long as there are any.

        The user starts a process for each core. A job that ends may make new jobs known.
        """
        torch.set_num_threads(1)
        self.folder.mkdir(parents=True, exist_ok=True)
        while jobs := self.missing(runs := self.read()):
            # ``any`` ends at the first job that is done: then the jobs are looked up anew.
            if not any(self._done(job, runs) for job in jobs):
                time.sleep(WAIT)

    def _done(self, job: Job, runs: Runs) -> bool:
        """Do a job, unless another process has done it; False where another one is doing it."""
        name = self.key(job)
        file = self.folder / f"{name}.json"
        with (self.folder / f".{name}.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if not file.is_file():
                start = time.process_time()
                record = {"job": job, **provenance(), **self.train(job, runs)}
                record["cpu_seconds"] = round(time.process_time() - start, 1)
                write_atomically(file, json.dumps(record) + "\n")
                print(f"{name}: done", flush=True)
        return True

    def whole_seeds(self, runs: Runs) -> dict[int, list[Record]]:
        """By seed the records of those whose jobs are all done, on machines of one kind."""
        all_jobs, whole_seeds = [*self.jobs(runs)], {}
        for seed in self.seeds:
            jobs = {self.key(job): job for job in all_jobs if job["seed"] == seed}
            # Records of old archives have no job.
            records = [{**runs[name], "job": job} for name, job in jobs.items() if name in runs]
            kinds = {(record["cpu"], record["torch"]) for record in records}
            if len(records) == len(jobs) and len(kinds) == 1:
                whole_seeds[seed] = records
        return whole_seeds

    def arms(self, runs: Runs) -> dict[Any, list[Record]]:
        """By arm the records of the whole seeds, from the first seed on without a gap.

        With fewer such seeds than the ``least`` it is empty: no result is seen before.
        """
        whole_seeds, by_arm = self.whole_seeds(runs), dict[Any, list[Record]]()
        seeds = [*itertools.takewhile(whole_seeds.__contains__, self.seeds)]
        for seed in seeds if len(seeds) >= self.least else ():
            for record in whole_seeds[seed]:
                by_arm.setdefault(self.arm(record["job"]), []).append(record)
        return by_arm

    def archive(self) -> int:
        """Write the records of the tuning and of whole seeds; return their number."""
        runs, old_runs = self.read(), self.old()
        incomplete_seeds = {*self.seeds} - self.whole_seeds(runs).keys()
        new_runs = [run for name, run in runs.items() if name not in old_runs]
        records = [run for run in new_runs if run["job"]["seed"] not in incomplete_seeds]
        text = "".join(json.dumps(record) + "\n" for record in records)
        with durable(_archive(self.name)) as file:
            file.write(lzma.compress(text.encode()))
        return len(records)


def archive_of(name: str) -> list[Record]:
    """The records of an archive; none where there is no such file."""
    file = _archive(name)
    return [*map(json.loads, lzma.open(file, "rt"))] if file.is_file() else []


def _archive(name: str) -> Path:
    """The file of a study's archive."""
    return RECORDS / f"{name}.jsonl.xz"


def provenance() -> Record:
    """The code, with the diff to its commit, the time and the machine of a run that starts now."""
    return {
        "commit": manifest.commit(),
        "changes": manifest.changes().decode(errors="replace"),
        "time": manifest.now(),
        "cpu": f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
