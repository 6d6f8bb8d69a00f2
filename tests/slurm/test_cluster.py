"""The cluster that the tests start is a real one, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cluster import cluster, missing, slurm, wait

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]


def processes() -> dict[int, bytes]:
    """What each living process was started as."""
    commands = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            commands[int(entry.name)] = (entry / "cmdline").read_bytes()
        except OSError:
            continue
    return commands


def cgroups() -> set[Path]:
    return set(Path("/sys/fs/cgroup").rglob("*slurm*"))


def is_of_a_cluster(command: bytes) -> bool:
    """By its program: other tests, which may run beside these, have slurm in their arguments."""
    program = Path(os.fsdecode(command.split(b"\0")[0])).name
    return "slurm" in program or "munge" in program or b"sleep\x00600" in command


def work_and_fail(output: Path) -> None:
    """Start four jobs at once in a cluster, see them run, and fail."""
    with cluster():
        slurm("sbatch", "--array=0-3", f"--output={output}/%a", "--wrap", "srun sleep 600")
        assert wait(lambda: slurm("squeue", "-hr", "-o", "%T").split() == ["RUNNING"] * 4)
        assert wait(lambda: sum(b"sleep\x00600" in line for line in processes().values()) >= 4)
        raise ZeroDivisionError


def test_it_runs_jobs_side_by_side_and_is_gone_with_them_after_a_failure(tmp_path: Path) -> None:
    before, groups, environment = processes(), cgroups(), dict(os.environ)
    with pytest.raises(ZeroDivisionError):
        work_and_fail(tmp_path)
    assert dict(os.environ) == environment
    assert cgroups() == groups
    started = [name for pid, name in processes().items() if pid not in before]
    assert not [command for command in started if is_of_a_cluster(command)]
