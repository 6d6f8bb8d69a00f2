"""The processes that train a run together, their messages, and the cores that a process may use.

torchrun or srun starts the processes. When one process fails, torchrun or ``srun
--kill-on-bad-exit`` ends the others. Rank r of R has the samples r, r + R, r + 2R, … of each batch.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from igo.ground.errors import Outside, UserError

if TYPE_CHECKING:  # torch is imported where it is used: a dry run needs none.
    from torch import Tensor

Value = TypeVar("Value")
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
# srun sets these variables, and sbatch does not.
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
BACKENDS = ("gloo", "NCCL", "TCPStore")  # The errors of a lost rank name one of these.
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroups 2 has a container's quota there.
NOTICE = 2.0  # The seconds that rank 0 has to record and say an error that all ranks meet.


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. With one process every call returns at once.

    ``rank`` counts over all machines, ``local_rank`` on this machine alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @staticmethod
    def of_environment() -> Ranks:
        """Read the variables of torchrun or srun; one rank if neither started this process."""
        for names in (TORCHRUN, SRUN):
            if all(os.environ.get(name) for name in names):
                rank, size, local_rank = (int(os.environ[name]) for name in names)
                return Ranks(rank, size, local_rank)
        return Ranks()

    @property
    def first(self) -> bool:
        """Whether this rank writes the record and the terminal."""
        return self.rank == 0

    @property
    def seed_suffix(self) -> tuple[int, ...]:
        """What this rank adds to the purpose of a random seed; rank 0 adds nothing."""
        return (self.rank,) if self.rank else ()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Join the other ranks.

        Raises:
            Outside: the body failed because another rank has ended.
        """
        if self.size == 1:
            yield
            return
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        if not dist.is_initialized():  # A sweep trains several runs in these processes.
            if "MASTER_ADDR" not in os.environ:
                address, port = slurm_address()
                os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
            # Gradients on GPUs go by NCCL; what the hosts tell each other goes by gloo.
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            store, rank, size = next(rendezvous("env://", self.rank, self.size))
            # torchrun's store outlives a restart, and keeps addresses of processes that have ended.
            # So each restart has its own prefix in the store.
            store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", ""), store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size)
            atexit.register(dist.destroy_process_group)
        try:
            yield
        except BaseException as error:
            # To destroy the group at exit may wait for a rank that failed.
            atexit.unregister(dist.destroy_process_group)
            self.let_first_speak()
            self.check_lost(error)
            raise  # It is this rank's own error.

    def let_first_speak(self) -> None:
        """Wait, before an error ends this rank, so that rank 0 can say the error first.

        torchrun ends all ranks when the first of them fails.
        """
        if not self.first:
            time.sleep(NOTICE)

    def check_lost(self, error: BaseException) -> None:
        """Raise one line instead of gloo's or NCCL's error about a rank that has ended."""
        is_lost = isinstance(error, RuntimeError) and any(name in str(error) for name in BACKENDS)
        if self.size > 1 and is_lost:
            raise Outside(
                "another process of this run has ended or is out of reach; its own output says why,"
                " and the same command continues"
            ) from error

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all ranks, the same bits on each; return the tensor."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def largest(self, number: int) -> Callable[[], int]:
        """Begin to find the largest of all ranks' numbers.

        The function that this returns waits for the largest number, and returns it.
        """
        if self.size == 1:
            return lambda: number
        import torch
        import torch.distributed as dist

        work = dist.all_reduce(torch.tensor(number), dist.ReduceOp.MAX, async_op=True)
        return lambda: int(work.get_future().wait()[0])

    def broadcast(self, value: Value) -> Value:
        """Rank 0's value, with tensors in CPU memory."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: Value) -> list[Value]:
        """Each rank's value, by rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values = [value] * self.size
        dist.all_gather_object(values, value)
        return values


ALONE = Ranks()


def slurm_address() -> tuple[str, int]:
    """Where srun's processes meet: the step's first node, and a port by job and step.

    SLURM_LAUNCH_NODE_IPADDR may be wrong: salloc starts srun on a node that has no rank.
    """
    nodes = os.environ.get("SLURM_STEP_NODELIST", "")
    if not nodes:
        raise UserError(
            f"{', '.join(TORCHRUN)} are set and MASTER_ADDR is not: start the processes with"
            " torchrun or srun, or unset these for one process"
        )
    # Several nodes may be one short text, such as gpu[01-04].
    if "[" in nodes or "," in nodes:
        command = ["scontrol", "show", "hostnames", nodes]
        nodes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
    # Neighbouring jobs and steps shall have different ports, so steps are 997 ports apart.
    port = 20000 + (job + 997 * step) % 10000
    return nodes.split()[0], port


def allowed_cores(quota: Path = QUOTA) -> int:
    """Count the cores that affinity and the container's CPU quota allow, 1 or more."""
    has_affinity = hasattr(os, "sched_getaffinity")  # macOS has none.
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    # `max 100000` or `350000 100000`: microseconds of CPU time in each period.
    share, period = quota.read_text().split() if quota.is_file() else ("max", "")
    return cores if share == "max" else max(1, min(cores, int(share) // int(period)))
