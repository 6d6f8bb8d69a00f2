"""The program without its five seconds of imports: one process loads all, each run is a fork of it.

A run can be told to kill itself at a moment, which a process started by a command line cannot:
``Death("igo.runs.checkpoint.save", call=2, moment="after")``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from conftest import ROOT, TINY, clean_environment
from hydra import compose, initialize_config_dir

from igo.errors import UserError

PYTHONPATH = (Path(__file__).parent, ROOT / "src")
PRELOADED = (  # the latter parts of sklearn and W&B are else imported where they are first used
    "igo.__main__",
    "igo.runs.session",
    "igo.runs.tracking",
    "igo.runs.checkpoint",
    "sklearn.datasets",
    "sklearn.model_selection",
    "timm",
    "wandb",
    "wandb._analytics",
    "wandb.apis.public",
    "wandb.sdk.launch",
)


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
    cpu: float = 0.0  # seconds that the process computed


class Forge:
    """Starts runs as forks of one process; usable as a context manager."""

    def __init__(self) -> None:
        self._server = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._server.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self._kill()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(PYTHONPATH=os.pathsep.join(map(str, PYTHONPATH))),
            text=True,
            process_group=0,  # that of its runs, too
        )

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.communicate()

    def run(
        self,
        folder: Path,
        *arguments: str,
        death: Death | None = None,
        settings: dict[str, float] | None = None,
        alarm: float = 0.0,
        alarm_signal: signal.Signals = signal.SIGKILL,
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
            alarm_signal: that signal.
            room: MiB of memory that the process may take beyond what it starts with; 0 = any.
            settings: module constants to change, such as ``igo.runs.tracking.INIT_TIMEOUT``.
            ranks: how many processes, as torchrun would start them.
            function: full name of one to call with the arguments instead; see ``results``.
            command: ``igo COMMAND …`` with the arguments instead.
            bare: leave runs_dir out.
            said: the folder where the outputs are kept; None = the working directory.
            environment: variables to set.
        """
        own = () if bare or function or command else (f"runs_dir={folder / 'runs'}",)
        first = arguments[:1] and not arguments[0].startswith("-")  # flags come before or after all
        kept = said or folder
        job = {
            "folder": str(folder),
            "said": str(kept),
            "arguments": [*own, *arguments] if first else [*arguments, *own],
            "death": asdict(death) if death else None,
            "settings": settings or {},
            "alarm": alarm,
            "alarm_signal": int(alarm_signal),
            "room": room,
            "ranks": ranks,
            "function": function,
            "command": command,
            "environment": environment,
        }
        try:
            codes, cpu = self._answer(job)
        except BaseException:  # out of time: the answer yet to come would be taken for the next
            self._kill()
            self._server = self._start()
            raise
        ended = [
            (code, *((kept / _output(name, rank)).read_text() for name in ("out", "err")))
            for rank, code in enumerate(codes)
        ]
        return Ended(*ended[0], others=tuple(ended[1:]), cpu=cpu)

    def _answer(self, job: dict[str, Any]) -> tuple[list[int], float]:
        pipes = self._server.stdin, self._server.stdout
        if pipes[0] is None or pipes[1] is None:
            raise TypeError("the server has no pipes")
        pipes[0].write(json.dumps(job) + "\n")
        pipes[0].flush()
        codes, cpu = json.loads(pipes[1].readline())
        return codes, cpu

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
    forge = Forge()
    atexit.register(forge.__exit__)
    return forge


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


def _output(name: str, rank: int) -> str:
    return f"{name}-{rank}.txt" if rank else f"{name}.txt"


def _child(job: dict[str, Any], rank: int) -> int:
    """Run src/train.py in this process; return the exit code that Python would give."""
    os.chdir(job["folder"])
    os.environ.update(job["environment"])
    for stream, name in ((1, "out"), (2, "err")):
        place = Path(job["said"], _output(name, rank))
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, stream)
    for setting, value in job["settings"].items():
        owner, name = _owner(setting)
        setattr(owner, name, value)
    if job["death"] and job["death"]["rank"] == rank:
        Death(**job["death"]).plant()
    if job["room"]:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + int(job["room"] * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    script = str(ROOT / "src" / "train.py")
    sys.argv = [script, *job["arguments"]]
    try:
        if job["function"]:
            owner, name = _owner(job["function"])
            torch.save(getattr(owner, name)(*job["arguments"]), f"result-{rank}.pt")
        elif job["command"]:
            sys.argv = ["igo", job["command"], *job["arguments"]]
            importlib.import_module("igo.__main__").main()
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _load_everything() -> None:
    """Import what a run imports, much of which happens when a model is built and used."""
    for module in PRELOADED:
        importlib.import_module(module)
    from igo.config import load
    from igo.config.plan import make_plan
    from igo.runs import assemble
    from igo.sweep import local

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        checked = load.load(compose("config", [*TINY, "tracking=none"]))
    assemble.prepare(checked, make_plan(checked))
    # A sweep's own server would import it all again.
    local._server = lambda _: multiprocessing.get_context("fork")  # type: ignore[assignment,return-value]


def _serve() -> None:
    _load_everything()
    for line in sys.stdin:
        job = json.loads(line)
        children = [_fork(job, rank) for rank in range(job["ranks"])]
        over = threading.Event()
        alarm = threading.Thread(target=_strike, args=(job, children[0], over))
        if job["alarm"]:
            alarm.start()
        ends = [os.wait4(child, 0) for child in children]
        over.set()
        if job["alarm"]:
            alarm.join()  # a fork must find no lock of a thread's taken
        codes = [os.waitstatus_to_exitcode(status) for _, status, _ in ends]
        print(json.dumps([codes, ends[0][2].ru_utime + ends[0][2].ru_stime]), flush=True)


def _strike(job: dict[str, Any], child: int, over: threading.Event) -> None:
    """Send a child its signal once it has computed for so long."""
    clock = (~child << 3) | 2  # Linux's for the CPU time of a process, as clock_getcpuclockid makes
    with contextlib.suppress(OSError):  # it has ended
        while not over.wait(0.002):
            if time.clock_gettime(clock) >= job["alarm"]:
                os.kill(child, job["alarm_signal"])
                return


def _fork(job: dict[str, Any], rank: int) -> int:
    if job["ranks"] > 1 and rank == 0:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        size = str(job["ranks"])
        job["environment"] |= {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    child = os.fork()
    if child == 0:
        if job["ranks"] > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 (the parent's pipe is not ours)
        code = _child(job, rank)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return child


if __name__ == "__main__":
    _serve()
