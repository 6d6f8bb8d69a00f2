"""The program without its five seconds of imports: each run is a fork of one server.

The server is multiprocessing's forkserver, with the imports of preloaded.py. A run can be told to
kill itself at a moment, which a process started by a command line cannot:
``Death("igo.runs.checkpoint.save", call=2, moment="after")``.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from conftest import ROOT, Ended, clean_environment, seed


@functools.cache
def server() -> ForkServerContext:
    """The server of this process of pytest. Its start costs seconds, so it is used by all tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    path = os.pathsep.join((str(Path(__file__).parent), str(ROOT / "src")))
    with mock.patch.dict(os.environ, clean_environment(PYTHONPATH=path), clear=True):
        forkserver.ensure_running()
    return context


@dataclass(frozen=True)
class Death:
    """At the k-th call of a function: before or after it, a signal or an exception.

    ``torn`` is for os.fsync: half of the file is there.
    """

    function: str
    call: int = 1
    moment: str = "before"
    signal: int = signal.SIGKILL
    group: bool = False  # the signal goes to the run's workers, too
    error: Exception | None = None  # raise this instead
    rank: int = 0  # the process among several

    def plant(self) -> None:
        """Wrap the function in this process."""
        if self.group:
            os.setpgrp()
        owner, name = _owner(self.function)
        original = getattr(owner, name)
        calls = 0

        @functools.wraps(original)
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != self.call:
                return original(*arguments, **keywords)
            result = None
            if self.moment == "torn":
                with contextlib.suppress(OSError):  # a folder
                    os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
            elif self.moment == "after":
                result = original(*arguments, **keywords)
            self.strike()
            return result if self.moment == "after" else original(*arguments, **keywords)

        setattr(owner, name, wrapped)

    def strike(self) -> None:
        """End the process, or tell it to end."""
        if self.error:
            raise self.error
        (os.killpg if self.group else os.kill)(os.getpid(), self.signal)


class Forge:
    """Starts runs as forks of the server of this process."""

    def run(
        self,
        *arguments: str,
        folder: Path | None = None,
        death: Death | None = None,
        settings: dict[str, Any] | None = None,
        alarm: float = 0.0,
        alarm_signal: int = signal.SIGKILL,
        ranks: int = 1,
        function: str = "",
        command: str = "",
        outputs: Path | None = None,
        **environment: str,
    ) -> Ended:
        """``python src/train.py runs_dir=folder/runs …`` in a folder, unless another is typed.

        Args:
            arguments: what a user would type.
            folder: the working directory, made if it is not there; None = this process's, which is
                a test's own.
            death: what happens to the run on the way.
            alarm: seconds of computing after which a signal arrives, wherever the process is; 0 =
                never. Not of time: a busy machine would shift the moments.
            alarm_signal: that signal. SIGKILL is SIGPROF in the exit code: both end it at once.
            settings: module constants to change, such as ``igo.runs.loggers.wandb.INIT_TIMEOUT``.
            ranks: how many processes, as torchrun would start them.
            function: full name of one to call with the arguments instead; see ``results``.
            command: ``igo COMMAND …``, or ``python -m lab.…``, with the arguments instead.
            outputs: the folder where the outputs are kept; None = the working directory.
            environment: variables to set.
        """
        folder = folder or Path.cwd()
        place = (
            ()
            if function or command or "runs_dir=" in " ".join(arguments)
            else (f"runs_dir={folder / 'runs'}",)
        )
        # Flags come before or after all settings.
        begins_with_flag = arguments[:1] and arguments[0].startswith("-")
        words = (*arguments, *place) if begins_with_flag else (*place, *arguments)
        disturb = functools.partial(_disturb, settings or {}, death, alarm, alarm_signal)
        program = functools.partial(_program, function, command, words)
        folder.mkdir(parents=True, exist_ok=True)
        cpu = server().Array("d", ranks, lock=False)
        group = _group(ranks) if ranks > 1 else {}
        environment.setdefault("HOME", os.environ["HOME"])  # the test's, not the server's
        files, processes = [], []
        for rank in range(ranks):
            rank_variables = (
                group | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)) if group else {}
            )
            ending = f"-{rank}.txt" if rank else ".txt"
            files.append([(outputs or folder) / f"{name}{ending}" for name in ("out", "err")])
            rank_arguments = (
                rank,
                folder,
                files[-1],
                environment | rank_variables,
                disturb,
                program,
                cpu,
            )
            processes.append(server().Process(target=_run, args=rank_arguments))
            processes[-1].start()
        for process in processes:
            process.join()
        outcomes = [
            (process.exitcode, out.read_text(), err.read_text())
            for process, (out, err) in zip(processes, files, strict=True)
        ]
        return Ended(*outcomes[0], others=tuple(outcomes[1:]), cpu=cpu[0])

    def results(self, ranks: int, function: str, *arguments: str, **environment: Any) -> list[Any]:
        """What a function returns on each rank: tensors, in plain containers."""
        self.run(*arguments, ranks=ranks, function=function, **environment).good()
        folder = environment.get("folder") or Path.cwd()
        return [torch.load(folder / f"result-{rank}.pt") for rank in range(ranks)]


forge = Forge()


def nothing(*_: object) -> list[Any]:
    """In place of a function that takes long."""
    return []


NO_FIGURES = {"igo.report.figures.of_task": nothing}


@functools.cache
def finished(*arguments: str) -> Path:
    """Where this run was started and has finished; no test changes it."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    process = forge.run(*arguments, folder=Path(folder.name))
    assert (process.returncode, process.stderr) == (0, ""), process
    return Path(folder.name)


def _group(ranks: int) -> dict[str, str]:
    """The environment by which ranks find each other."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    return {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _run(
    rank: int,
    folder: Path,
    outputs: list[Path],
    environment: dict[str, str],
    disturb: Callable[[int], None],
    program: Callable[[int], None],
    cpu: ctypes.Array[ctypes.c_double],
) -> None:
    """Run a program in this process."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
    multiprocessing.set_start_method(None, force=True)  # as a process of its own has it
    os.chdir(folder)
    os.environ.update(environment)
    for stream, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    disturb(rank)
    try:
        program(rank)
    finally:
        cpu[rank] = time.process_time()
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _disturb(
    settings: dict[str, Any],
    death: Death | None,
    alarm: float,
    alarm_signal: int,
    rank: int,
) -> None:
    for setting, value in settings.items():
        setattr(*_owner(setting), value)
    if death and death.rank == rank:
        death.plant()
    if alarm:
        if alarm_signal != signal.SIGKILL:
            signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), alarm_signal))
        signal.setitimer(signal.ITIMER_PROF, alarm)


def _program(function: str, command: str, arguments: tuple[str, ...], rank: int) -> None:
    if function:
        seed()
        torch.save(getattr(*_owner(function))(*arguments), f"result-{rank}.pt")
    elif command.startswith("lab."):
        sys.argv = [command, *arguments]
        importlib.import_module(f"{command}.__main__").main()
    elif command:
        sys.argv = ["igo", command, *arguments]
        importlib.import_module("igo.__main__").main()
    else:
        sys.argv = [str(ROOT / "src" / "train.py"), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")


def _owner(function: str) -> tuple[Any, str]:
    """The module or class that holds a function, by the function's full name."""
    path, _, name = function.rpartition(".")
    try:
        return importlib.import_module(path), name
    except ModuleNotFoundError:
        module, _, class_name = path.rpartition(".")
        return getattr(importlib.import_module(module), class_name), name
