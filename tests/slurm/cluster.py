"""A SLURM cluster of one node in a folder of its own: slurmctld and slurmd, no systemd."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
PATIENCE = 30.0  # seconds for a daemon to answer, or a job to die


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    if os.getuid() != 0:
        return "SLURM's daemons need root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (by tests/slurm/install.sh)" if absent else ""


@contextmanager
def cluster() -> Iterator[Path]:
    """Start a cluster, point SLURM_CONF at it, and leave nothing of it behind; yield its folder."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="igo-slurm-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _configure(folder)
        stack.callback(_kill_left, folder)
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        for daemon in ("slurmctld", "slurmd"):
            stack.enter_context(_daemon(daemon, folder))
        _wait_until_idle(folder)
        stack.callback(_empty_queue)
        yield folder


def slurm(*command: str) -> str:
    """What a client command prints; CalledProcessError where it fails."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout.strip()


def _configure(folder: Path) -> None:
    key = folder / "slurm.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        controller_port, node_port = (free.getsockname()[1] for free in sockets)
    template = Path(__file__).with_name("slurm.conf").read_text()
    filled = template.format(
        folder=folder,
        host=socket.gethostname().split(".")[0],
        controller_port=controller_port,
        node_port=node_port,
    )
    (folder / "slurm.conf").write_text(filled)
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")


@contextmanager
def _daemon(name: str, folder: Path) -> Iterator[None]:
    with (folder / f"{name}.output").open("w") as output:
        process = subprocess.Popen(
            [name, "-D"], stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait(lambda: (folder / f"{name}.pid").exists() or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(f"{name} does not start\n{_logs(folder)}")
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_idle(folder: Path) -> None:
    def idle() -> bool:
        ask = ["sinfo", "-h", "-o", "%T"]
        process = subprocess.run(ask, capture_output=True, text=True, timeout=PATIENCE, check=False)
        return set(process.stdout.split()) == {"idle"}

    if not wait(idle):
        raise RuntimeError(f"the node does not become idle\n{_logs(folder)}")


def wait(holds: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Look ten times a second whether it holds; False where it never did."""
    end = time.monotonic() + patience
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _logs(folder: Path) -> str:
    parts = []
    for path in sorted([*folder.glob("*.log"), *folder.glob("*.output")]):
        parts.append(f"--- {path.name}\n" + "\n".join(path.read_text().splitlines()[-10:]))
    return "\n".join(parts)


def _empty_queue() -> None:
    """Cancel every job, and wait until their processes are gone."""
    slurm("scancel", "--user=root")
    wait(lambda: slurm("squeue", "-h") == "")


def _kill_left(folder: Path) -> None:
    """Kill what the daemons started and left: it has this cluster's SLURM_CONF."""
    mark = f"SLURM_CONF={folder / 'slurm.conf'}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):  # it ended meanwhile
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
