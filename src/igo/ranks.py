"""The processes that train one run together: who this one is, and what they tell each other.

Rank r of R holds the samples r, r + R, r + 2R, … of each batch. So a range of the batch is a range
of what each rank holds, and δ_m, the parts of a batch and C² do not depend on R.
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

from igo.errors import UserError
from igo.rendezvous import TORCHRUN, store

if TYPE_CHECKING:  # torch is imported where it is used: a dry run answers without
    from torch import Tensor, nn

Value = TypeVar("Value")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")  # of a step: sbatch alone is none
PATIENCE = timedelta(seconds=100)  # how long the others wait for rank 0 to close the record
HEARD = 0.3  # seconds in which the others hear that it is closed
GPU_PACE = 16  # updates between two looks at the signals, where a GPU runs ahead of its process

_runs: list[int] = []  # of this process: each run of a sweep has a process group of its own


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. Alone, every call is a plain no-op.

    ``local_rank`` counts on this machine; ``pace`` is how many updates apart ranks agree on a stop.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    pace: int = 1
    store: Any = field(default=None, compare=False, repr=False)  # words that outlive a collective

    @staticmethod
    def of_environment() -> Ranks:
        """What torchrun or srun says; one process where neither started this one."""
        for names in (TORCHRUN, SRUN):
            if all(os.environ.get(name) for name in names):
                rank, size, local_rank = (int(os.environ[name]) for name in names)
                return Ranks(rank, size, local_rank)
        return Ranks()

    @property
    def first(self) -> bool:
        """Whether this rank holds the record and the terminal."""
        return self.rank == 0

    @property
    def own(self) -> tuple[int, ...]:
        """What a random stream of this rank's own adds to its purpose; rank 0 has that of one."""
        return (self.rank,) if self.rank else ()

    def count(self, samples: int) -> int:
        """How many of the first ``samples`` of a batch are this rank's."""
        return (samples + self.size - 1 - self.rank) // self.size

    def share(self, index_batches: Sequence[Tensor]) -> list[Tensor]:
        """This rank's samples of each batch; none of a batch that is smaller than its rank."""
        return [index[self.rank :: self.size] for index in index_batches]

    @contextmanager
    def joined(self) -> Iterator[Ranks]:
        """Join the other ranks; whatever ends one of them ends all."""
        if self.size == 1:
            yield self
            return
        import torch.distributed as dist

        everywhere, store, on_gpu, closed = _reached(
            self._join, lambda why: f"could not connect the run's processes ({why})"
        )
        try:
            yield replace(self, store=store, pace=GPU_PACE if on_gpu else 1)
        except BaseException as error:
            if not isinstance(error, SystemExit):
                with contextlib.suppress(RuntimeError):
                    store.compare_set("error", "", str(error) or type(error).__name__)
            # The others' next collective fails. A thread: NCCL may wait for what never comes.
            leaving = threading.Thread(target=dist.destroy_process_group, daemon=True)
            leaving.start()
            leaving.join(5)
            self._wait_for_the_record(everywhere, closed)
            raise
        dist.destroy_process_group()

    @contextmanager
    def joined_or_refused(self) -> Iterator[None]:
        """Around what ends in ``joined``: an error before it ends the others too, who wait."""
        before = len(_runs)
        try:
            yield
        except Exception as error:
            if len(_runs) > before:
                raise
            why = self.refused(str(error) or type(error).__name__)
            if not isinstance(error, UserError):
                raise
            raise UserError(why) from None

    def refused(self, why: str) -> str:
        """Tell the others that this one will not join them; returns what is to be said of it."""
        if self.size == 1:
            return why
        heard = [why]

        def tell() -> None:
            try:
                self._meet(why)
            except UserError as error:
                heard.append(str(error))
            except (ImportError, LookupError, OSError, RuntimeError, ValueError):
                pass  # nobody to tell, or no way: its own error is what counts

        telling = threading.Thread(target=tell, daemon=True)
        telling.start()
        telling.join(PATIENCE.total_seconds())
        return heard[-1]

    def _meet(self, refused: str = "") -> tuple[Any, int]:
        """Meet the other ranks before the next run, which all join or none.

        Returns:
            The store of all runs, and this run's number.
        """
        run = len(_runs)
        _runs.append(run)
        everywhere = store(self.rank, self.size)
        if self.first:
            everywhere.set(f"closed {run - 1}", "")
        everywhere.set(f"refused {run} {self.rank}", refused)
        for rank in range(self.size):
            why = everywhere.get(f"refused {run} {rank}").decode()
            if why:
                self._wait_for_the_record(everywhere, f"closed {run}")
                raise UserError(f"in process {rank}: {why}" if rank else why)
        return everywhere, run

    def _join(self) -> tuple[Any, Any, bool, str]:
        """Make the process group of the next run.

        Returns:
            The store of all runs, that of this one, whether NCCL is in the group, and the word by
            which rank 0 tells that the record is closed.
        """
        import torch
        import torch.distributed as dist

        here = torch.cuda.is_available() and dist.is_nccl_available()
        everywhere, run = self._meet()
        store = dist.PrefixStore(f"run {run}", everywhere)  # type: ignore[attr-defined]
        store.set(f"nccl {self.rank}", str(here))
        on_gpu = {store.get(f"nccl {rank}") for rank in range(self.size)} == {b"True"}
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",  # gloo carries words, also beside NCCL
            store=store,
            rank=self.rank,
            world_size=self.size,
        )
        return everywhere, store, on_gpu, f"closed {run}"

    def _wait_for_the_record(self, store: Any, closed: str) -> None:
        """Let rank 0 end first: torchrun ends all that are left as soon as one has failed."""
        with contextlib.suppress(RuntimeError):  # srun: the store ends with rank 0
            if self.first:
                atexit.register(_tell, store, closed)
            else:
                store.wait([closed], PATIENCE)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all ranks, the same bits on each; returns it."""
        if self.size > 1:
            import torch.distributed as dist

            _reached(lambda: dist.all_reduce(tensor), self._why)
        return tensor

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        found = torch.tensor(number)
        _reached(lambda: dist.all_reduce(found, dist.ReduceOp.MAX), self._why)
        return int(found)

    def broadcast(self, value: Value) -> Value:
        """Rank 0's value, tensors in CPU memory."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        values = [value]
        cpu = torch.device("cpu")
        _reached(lambda: dist.broadcast_object_list(values, device=cpu), self._why)
        return values[0]

    def agree(self, facts: Mapping[str, object]) -> None:
        """See that all ranks have the same facts, such as settings, before they depend on it."""
        words = self.everyones("facts", json.dumps(facts, sort_keys=True, default=str))
        first, *others = (json.loads(word) for word in words)
        for rank, other in enumerate(others, 1):
            for name in sorted(first.keys() | other.keys()):
                if first.get(name) != other.get(name):
                    raise UserError(
                        f"{name} differs among the processes of this run: {first.get(name)} in the"
                        f" first, {other.get(name)} in process {rank}. Start all with the same"
                        " command, code and versions"
                    )

    def everyones(self, name: str, word: str) -> list[str]:
        """What each rank says of something, by rank."""
        if self.size == 1:
            return [word]
        self.store.set(f"{name} {self.rank}", word)

        def said() -> list[str]:
            return [self.store.get(f"{name} {rank}").decode() for rank in range(self.size)]

        return _reached(said, self._why)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients of Σ loss/b over ranks, b the whole batch: the gradient of the mean loss.

        DistributedDataParallel averages over ranks, which is right for equal shares alone. A
        parameter without a gradient gets zeros: a rank without samples has to send something.
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

    def _why(self, reason: str) -> str:
        """Why a collective failed: what another rank said before it left, if it could."""
        with contextlib.suppress(RuntimeError):
            if self.store.check(["error"]):
                return str(self.store.get("error").decode())
        return f"a process of this run ended or is out of reach ({reason})"


ALONE = Ranks()


def have_met() -> bool:
    """Whether this process has met the others of its run, or told them that it will not."""
    return bool(_runs)


def _as_in_memory(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient with its axes as the parameter has them in memory: it is copied as it lies."""
    strides = parameter.stride()
    return gradient.permute(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def _tell(store: Any, word: str) -> None:
    with contextlib.suppress(RuntimeError):
        store.set(word, "")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        time.sleep(HEARD)  # the store ends with this process: PyTorch would tell the others


def _reached(call: Callable[[], Value], why: Callable[[str], str]) -> Value:
    """What a call to other ranks returns, or in one line why they cannot be reached.

    The error is raised apart from its cause, whose frames would hold the connections open.
    """
    try:
        return call()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
    raise UserError(why(reason))
