"""The processes that train one run together: the rank of this one, and their communication.

Rank r of R has the samples r, r + R, r + 2R, … of each batch. So a range of the batch is a range
of each rank's samples, and δ_m, the parts of a batch and C² do not depend on R.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from igo.ground.errors import UserError
from igo.ground.rendezvous import TORCHRUN, store

if TYPE_CHECKING:  # torch is imported when it is used: a dry run needs none
    from torch import Tensor, nn

Value = TypeVar("Value")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")  # set by srun, not by sbatch
PATIENCE = timedelta(seconds=100)  # how long the others wait for rank 0 to close the record
NOTICE = 0.3  # seconds that the others have to notice that the record is closed
GPU_PACE = 16  # updates between two checks for signals; a GPU runs ahead of its process

_runs: list[int] = []  # the runs of this process: a sweep has several, each with a process group


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. With one process every call returns at once.

    ``local_rank`` counts on this machine. Ranks agree on a stop every ``pace`` updates.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    pace: int = 1
    store: Any = field(default=None, compare=False, repr=False)  # key-value store of this run

    @staticmethod
    def of_environment() -> Ranks:
        """Read the variables of torchrun or srun; one process if neither started this one."""
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

    def count(self, samples: int) -> int:
        """How many of the first ``samples`` of a batch are this rank's."""
        return (samples + self.size - 1 - self.rank) // self.size

    def share(self, index_batches: Sequence[Tensor]) -> list[Tensor]:
        """This rank's samples of each batch, which may be none."""
        return [index[self.rank :: self.size] for index in index_batches]

    @contextmanager
    def joined(self) -> Iterator[Ranks]:
        """Join the other ranks. An error in one of them ends all."""
        if self.size == 1:
            yield self
            return
        import torch.distributed as dist

        all_runs, store, on_gpu, closed = _call(
            self._join, lambda reason: f"could not connect the run's processes ({reason})"
        )
        try:
            yield replace(self, store=store, pace=GPU_PACE if on_gpu else 1)
        except BaseException as error:
            if not isinstance(error, SystemExit):
                with contextlib.suppress(RuntimeError):
                    store.compare_set("error", "", str(error) or type(error).__name__)
            # This makes the others' next collective fail. It may block, so a thread does it.
            leaving = threading.Thread(target=dist.destroy_process_group, daemon=True)
            leaving.start()
            leaving.join(5)
            self._wait_for_record(all_runs, closed)
            raise
        dist.destroy_process_group()

    @contextmanager
    def refusing_on_error(self) -> Iterator[None]:
        """For code that calls ``joined``: an error before that call ends the other ranks too."""
        before = len(_runs)
        try:
            yield
        except Exception as error:
            if len(_runs) > before:
                raise
            message = self.refused(str(error) or type(error).__name__)
            if not isinstance(error, UserError):
                raise
            raise UserError(message) from None

    def refused(self, message: str) -> str:
        """Tell the others that this process will not join, and return the message to show."""
        if self.size == 1:
            return message
        messages = [message]

        def tell() -> None:
            try:
                self._meet(message)
            except UserError as error:
                messages.append(str(error))
            except (ImportError, LookupError, OSError, RuntimeError, ValueError):
                pass  # the others cannot be reached: the message of this process is shown

        telling = threading.Thread(target=tell, daemon=True)
        telling.start()
        telling.join(PATIENCE.total_seconds())
        return messages[-1]

    def _meet(self, refused: str = "") -> tuple[Any, int]:
        """Meet the other ranks before the next run: all of them join it, or none.

        Returns:
            The store of all runs, and this run's number.
        """
        run = len(_runs)
        _runs.append(run)
        all_runs = store(self.rank, self.size)
        if self.first:
            all_runs.set(f"closed {run - 1}", "")
        all_runs.set(f"refused {run} {self.rank}", refused)
        for rank in range(self.size):
            message = all_runs.get(f"refused {run} {rank}").decode()
            if message:
                self._wait_for_record(all_runs, f"closed {run}")
                raise UserError(f"in process {rank}: {message}" if rank else message)
        return all_runs, run

    def _join(self) -> tuple[Any, Any, bool, str]:
        """Make the process group of the next run.

        Returns:
            The store of all runs, the store of this run, whether NCCL is in the group, and the key
            that rank 0 sets when the record is closed.
        """
        import torch
        import torch.distributed as dist

        has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
        all_runs, run = self._meet()
        store = dist.PrefixStore(f"run {run}", all_runs)  # type: ignore[attr-defined]
        store.set(f"nccl {self.rank}", str(has_nccl))
        on_gpu = {store.get(f"nccl {rank}") for rank in range(self.size)} == {b"True"}
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",  # gloo sends what is in CPU memory
            store=store,
            rank=self.rank,
            world_size=self.size,
        )
        return all_runs, store, on_gpu, f"closed {run}"

    def _wait_for_record(self, store: Any, closed: str) -> None:
        """Let rank 0 end first: torchrun kills the others as soon as one process has failed."""
        with contextlib.suppress(RuntimeError):  # under srun the store ends with rank 0
            if self.first:
                atexit.register(_announce, store, closed)
            else:
                store.wait([closed], PATIENCE)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all ranks, the same bits on each; returns it."""
        if self.size > 1:
            import torch.distributed as dist

            _call(lambda: dist.all_reduce(tensor), self._message)
        return tensor

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        largest = torch.tensor(number)
        _call(lambda: dist.all_reduce(largest, dist.ReduceOp.MAX), self._message)
        return int(largest)

    def broadcast(self, value: Value) -> Value:
        """Rank 0's value, with tensors in CPU memory."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        values = [value]
        cpu = torch.device("cpu")
        _call(lambda: dist.broadcast_object_list(values, device=cpu), self._message)
        return values[0]

    def agree(self, facts: Mapping[str, object]) -> None:
        """Check that all ranks have the same facts, such as settings."""
        texts = self.gather("facts", json.dumps(facts, sort_keys=True, default=str))
        first, *others = (json.loads(text) for text in texts)
        for rank, other in enumerate(others, 1):
            for name in sorted(first.keys() | other.keys()):
                if first.get(name) != other.get(name):
                    raise UserError(
                        f"{name} differs among the processes of this run: {first.get(name)} in the"
                        f" first, {other.get(name)} in process {rank}. Start all with the same"
                        " command, code and versions"
                    )

    def gather(self, key: str, text: str) -> list[str]:
        """Each rank's text, by rank. Each ``key`` is used once in a run."""
        if self.size == 1:
            return [text]
        self.store.set(f"{key} {self.rank}", text)

        def texts() -> list[str]:
            return [self.store.get(f"{key} {rank}").decode() for rank in range(self.size)]

        return _call(texts, self._message)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients over ranks, each the gradient of Σ loss/b over a rank's share of b samples.

        The sum is the gradient of the batch's mean loss. DistributedDataParallel averages, which is
        right for equal shares only. A rank without samples has no gradients, and sends zeros.
        """
        if self.size == 1:
            return
        import torch

        gradients = []
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(_as_in_memory(parameter.grad, parameter))
        flat = self.sum_(torch.cat([gradient.flatten() for gradient in gradients]))
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, summed in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(summed.view(gradient.shape))

    def _message(self, reason: str) -> str:
        """Why a collective failed: the error of the rank that left first, if it is known."""
        with contextlib.suppress(RuntimeError):
            if self.store.check(["error"]):
                return str(self.store.get("error").decode())
        return f"a process of this run ended or is out of reach ({reason})"


ALONE = Ranks()


def have_met() -> bool:
    """Whether this process has met the others of its run, or has refused to join them."""
    return bool(_runs)


def _as_in_memory(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient with its axes in the order of the parameter's memory."""
    strides = parameter.stride()
    return gradient.permute(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def _announce(store: Any, key: str) -> None:
    with contextlib.suppress(RuntimeError):
        store.set(key, "")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        time.sleep(NOTICE)  # the store ends with this process, and PyTorch would report that


def _call(call: Callable[[], Value], message: Callable[[str], str]) -> Value:
    """Call other ranks. An error becomes a UserError with a ``message`` of its reason.

    It is raised outside the except clause: frames of its cause would keep connections open.
    """
    try:
        return call()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
    raise UserError(message(reason))
