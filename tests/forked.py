"""The program without its five seconds of imports: each run is a fork of one server.

The server is multiprocessing's forkserver, with the imports of preloaded.py. A run can be told to
kill itself at a moment, which a process started by a command line cannot:
``Death("igo.runs.checkpoint.save", call=2, moment="after")``.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from conftest import ROOT, clean_environment

from igo.errors import UserError

CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Death:
    """At the k-th call of a function: before, inside or after it, a signal or an exception.

    ``inside`` is for writing functions alone: half of what they write is written. ``torn`` is for
    os.fsync: half of the file is there.
    """

    function: str
    call: int = 1
    moment: str = "before"
    signal: int = signal.SIGKILL
    error: str = ""  # raise this instead
    cure: bool = False  # as a UserError
    errno: int = 0  # raise this OSError instead, as the kernel would
    rank: int = 0  # of several processes, which

    def plant(self) -> None:
        """Wrap the function in this process."""
        owner, name = _owner(self.function)
        original = getattr(owner, name)
        calls = 0

        @functools.wraps(original)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == self.call and self.moment == "before":
                self.strike()
            if calls == self.call and self.moment == "inside":
                _write_half(original, *arguments, **named)
                self.strike()
            if calls == self.call and self.moment == "torn":
                with contextlib.suppress(OSError):  # a folder
                    os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                self.strike()
            result = original(*arguments, **named)
            if calls == self.call and self.moment == "after":
                self.strike()
            return result

        setattr(owner, name, wrapped)

    def strike(self) -> None:
        """End the process, or tell it to end."""
        if self.errno:
            raise OSError(self.errno, os.strerror(self.errno))
        if self.error:
            raise UserError(self.error) if self.cure else RuntimeError(self.error)
        os.kill(os.getpid(), self.signal)


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative: the signal that killed it) and what it said."""

    returncode: int
    stdout: str
    stderr: str
    others: tuple[tuple[int, str, str], ...] = ()  # the same of ranks 1, 2, …
    cpu: float = 0.0  # seconds that the process computed, where it was not killed


@dataclass(frozen=True)
class Job:
    """What a run's process is given: see Forge.run."""

    folder: Path
    said: Path
    arguments: tuple[str, ...]
    death: Death | None
    settings: dict[str, float]
    alarm: float
    alarm_signal: int
    room: float
    ranks: int
    function: str
    command: str
    environment: dict[str, str]


class Forge:
    """Starts runs as forks of the server of this process."""

    def __init__(self) -> None:
        CONTEXT.set_forkserver_preload(["preloaded"])
        path = os.pathsep.join(map(str, (Path(__file__).parent, ROOT / "src", ROOT)))
        with mock.patch.dict(os.environ, clean_environment(PYTHONPATH=path), clear=True):
            forkserver.ensure_running()

    def run(
        self,
        folder: Path,
        *arguments: str,
        death: Death | None = None,
        settings: dict[str, float] | None = None,
        alarm: float = 0.0,
        alarm_signal: int = signal.SIGKILL,
        room: float = 0.0,
        ranks: int = 1,
        function: str = "",
        command: str = "",
        bare: bool = False,
        said: Path | None = None,
        **environment: str,
    ) -> Ended:
        """``python src/train.py runs_dir=folder/runs …`` in a folder.

        Args:
            folder: the working directory.
            arguments: what a user would type.
            death: what happens to the run on the way.
            alarm: seconds of computing after which a signal arrives, wherever the process is; 0 =
                never. Not of time: a busy machine would shift the moments.
            alarm_signal: that signal. SIGKILL is SIGPROF in the exit code: both end it at once.
            room: MiB of memory that the process may take beyond what it starts with; 0 = any.
            settings: module constants to change, such as ``igo.runs.tracking.INIT_TIMEOUT``.
            ranks: how many processes, as torchrun would start them.
            function: full name of one to call with the arguments instead; see ``results``.
            command: ``igo COMMAND …``, or ``python -m lab.…``, with the arguments instead.
            bare: leave runs_dir out.
            said: the folder where the outputs are kept; None = the working directory.
            environment: variables to set.
        """
        place = () if bare or function or command else (f"runs_dir={folder / 'runs'}",)
        first = arguments[:1] and not arguments[0].startswith("-")  # flags come before or after all
        typed = (*place, *arguments) if first else (*arguments, *place)
        kept = said or folder
        if ranks > 1:
            environment |= _group(ranks)
        job = Job(
            folder, kept, typed, death, settings or {}, alarm, alarm_signal, room, ranks, function,
            command, environment,
        )  # fmt: skip
        cpu = CONTEXT.Array("d", ranks, lock=False)
        processes = [CONTEXT.Process(target=_run, args=(job, rank, cpu)) for rank in range(ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        ended = [
            (
                process.exitcode,
                *((kept / _output(name, rank)).read_text() for name in ("out", "err")),
            )
            for rank, process in enumerate(processes)
        ]
        return Ended(*ended[0], others=tuple(ended[1:]), cpu=cpu[0])

    def results(self, folder: Path, ranks: int, function: str, *arguments: str) -> list[Any]:
        """What a function returns on each rank: tensors, in plain containers."""
        ended = self.run(folder, *arguments, ranks=ranks, function=function)
        codes = [ended.returncode, *(code for code, _, _ in ended.others)]
        if any(codes):
            raise RuntimeError(f"{codes}: {ended}")
        return [torch.load(folder / f"result-{rank}.pt") for rank in range(ranks)]


@functools.cache
def shared_forge() -> Forge:
    """The one of this process of pytest: its start costs seconds."""
    return Forge()


def _group(ranks: int) -> dict[str, str]:
    """The environment by which so many processes find each other."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    return {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _output(name: str, rank: int) -> str:
    return f"{name}-{rank}.txt" if rank else f"{name}.txt"


def _run(job: Job, rank: int, cpu: ctypes.Array[ctypes.c_double]) -> None:
    """Run what the job says in this process, with its outputs in files."""
    os.chdir(job.folder)
    os.environ.update(job.environment)
    if job.ranks > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(
            os.open(job.said / _output(name, rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream
        )
    _disturb(job, rank)
    try:
        _program(job, rank)
    finally:
        cpu[rank] = time.process_time()
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _disturb(job: Job, rank: int) -> None:
    for setting, value in job.settings.items():
        owner, name = _owner(setting)
        setattr(owner, name, value)
    if job.death and job.death.rank == rank:
        job.death.plant()
    if job.room:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + int(job.room * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    if job.alarm:
        if job.alarm_signal != signal.SIGKILL:
            signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), job.alarm_signal))
        signal.setitimer(signal.ITIMER_PROF, job.alarm)


def _program(job: Job, rank: int) -> None:
    script = str(ROOT / "src" / "train.py")
    sys.argv = [script, *job.arguments]
    if job.function:
        owner, name = _owner(job.function)
        torch.save(getattr(owner, name)(*job.arguments), f"result-{rank}.pt")
    elif job.command.startswith("lab."):
        sys.argv = [job.command, *job.arguments]
        importlib.import_module(f"{job.command}.__main__").main()
    elif job.command:
        sys.argv = ["igo", job.command, *job.arguments]
        importlib.import_module("igo.__main__").main()
    else:
        runpy.run_path(script, run_name="__main__")


def _owner(function: str) -> tuple[Any, str]:
    """The module or class that holds a function, by the function's full name."""
    path, _, name = function.rpartition(".")
    try:
        return importlib.import_module(path), name
    except ModuleNotFoundError:
        module, _, class_name = path.rpartition(".")
        return getattr(importlib.import_module(module), class_name), name


def _write_half(original: Any, *arguments: Any, **named: Any) -> None:
    """Let a function write into a file object, and keep half of it."""
    where = next(one for one in arguments if hasattr(one, "truncate"))
    start = where.tell()
    original(*arguments, **named)
    where.truncate(start + (where.tell() - start) // 2)
    where.flush()
    os.fsync(where.fileno())
