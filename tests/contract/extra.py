"""What few offer: parts of a batch on two ranks, and streams, each as it is documented."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import igo
from contract.checks import Way
from contract.job import (
    CHANGE,
    EPOCHS,
    FIRST_RATE,
    LARGE,
    MIDDLE,
    SMALL,
    Job,
    Numbers,
    Ran,
    network,
)
from contract.ours import ranks

MOST = 2  # samples that go through the model at once


def mean_of(model: nn.Module, batch: Tensor) -> Tensor:
    """A loss whose gradient is the mean of the samples: the batch can be told from it."""
    return model(batch / 1000).mean()


def parts(job: Job) -> Ran:
    """BatchSampler(parts=…), update.weight and update.ends, under DDP."""
    plan = job.plan
    torch.distributed.init_process_group("gloo")
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=FIRST_RATE)
    batches = igo.BatchSampler(plan, seed=0, parts=MOST)
    loader = DataLoader(Numbers(job.n), batch_sampler=batches)
    schedule = igo.Schedule(optimizer, batches)
    ran = Ran(promised=plan.updates)
    taken: list[Tensor] = []
    for _ in batches.epochs():
        for part in loader:
            update = schedule.step()
            taken.append(part)
            with nullcontext() if update.ends else model.no_sync():
                (mean_of(model, part) * update.weight).backward()
            if update.ends:
                ran.add_parts(taken, update.batch_size, model)
                optimizer.step()
                optimizer.zero_grad()
    return ran


def parts_in_accelerate(job: Job) -> Ran:
    """The same, prepared by the adapter."""
    from accelerate import Accelerator

    from igo.adapters.accelerate import prepare

    accelerator, bare = Accelerator(cpu=True), network()
    model, optimizer = accelerator.prepare(bare, torch.optim.SGD(bare.parameters(), lr=FIRST_RATE))
    batches = igo.BatchSampler(job.plan, seed=0, parts=MOST)
    loader = prepare(accelerator, DataLoader(Numbers(job.n), batch_sampler=batches))
    schedule = igo.Schedule(optimizer, batches)
    ran = Ran(promised=job.plan.updates)
    taken: list[Tensor] = []
    for _ in batches.epochs():
        for part in loader:
            update = schedule.step()
            taken.append(part)
            with nullcontext() if update.ends else accelerator.no_sync(model):
                accelerator.backward(mean_of(model, part) * update.weight)
            if update.ends:
                ran.add_parts(taken, update.batch_size, model)
                optimizer.step()
                optimizer.zero_grad()
    accelerator.free_memory()
    return ran


def accumulated_by_accelerate(job: Job) -> Ran:
    """accumulate(model), with more steps from the third epoch."""
    from accelerate import Accelerator

    accelerator, bare = Accelerator(cpu=True, gradient_accumulation_steps=2), network()
    loader: Any = DataLoader(Numbers(job.n), MOST, shuffle=True)
    optimizer: Any = torch.optim.SGD(bare.parameters(), lr=FIRST_RATE)
    model, optimizer, loader = accelerator.prepare(bare, optimizer, loader)
    ran, taken = Ran(), list[Tensor]()
    for epoch in range(1, EPOCHS + 1):
        size = job.batch_size(epoch)
        accelerator.gradient_accumulation_steps = size // MOST // accelerator.num_processes
        for part in loader:
            taken.append(part)
            with accelerator.accumulate(model):
                accelerator.backward(mean_of(model, part))
                if accelerator.sync_gradients:
                    ran.add_parts(taken, size, model)
                optimizer.step()
                optimizer.zero_grad()
    accelerator.free_memory()
    return ran


def accumulated_by_lightning(job: Job) -> Ran:
    """GradientAccumulationScheduler({0: 2, 2: 4}) on two ranks."""
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    ran, taken = Ran(), list[Tensor]()

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, part: Tensor) -> Tensor:
            taken.append(part)
            return mean_of(self.network, part)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=FIRST_RATE)

    class Recorder(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
            size = trainer.accumulate_grad_batches * MOST * ranks()
            ran.add_parts(taken, size, module.network)

    schedule = GradientAccumulationScheduler({0: 2, CHANGE - 1: 4})
    trainer = Trainer(
        max_epochs=EPOCHS, callbacks=[schedule, Recorder()], accelerator="cpu", devices=ranks(),
        strategy="ddp", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=job.path,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(Numbers(job.n), MOST, shuffle=True))
    return ran


class Stream(IterableDataset[Tensor]):
    """The numbers from 0 on; each worker reads its own."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return (torch.tensor([float(i)]) for i in range(first, self.n, step))


def stream(job: Job) -> Ran:
    """Counter.batches of a loader that delivers samples."""
    counter = igo.Counter(job.plan)
    samples = DataLoader(Stream(job.n), batch_size=None, num_workers=job.workers)
    ran = Ran(promised=job.plan.updates)
    for batch in counter.batches(samples):
        update = counter.advance()
        ran.add(batch, update.batch_size, update.learning_rate)
    return ran


def mutated_stream(job: Job) -> Ran:
    """loader.batch_sampler.batch_size set after the last update of the first stage."""
    loader = DataLoader(Stream(job.n), SMALL, num_workers=job.workers)
    sampler: Any = loader.batch_sampler
    ran = Ran()
    for batch in loader:
        ran.add(batch, sampler.batch_size, FIRST_RATE)
        if len(ran.rows) == MIDDLE:
            sampler.batch_size = LARGE
    return ran


PARTS: dict[str, Way] = {
    "plain": parts,
    "accelerate": parts_in_accelerate,
    "GradientAccumulationScheduler": accumulated_by_lightning,
    "Accelerate, by default": accumulated_by_accelerate,
}
STREAMS: dict[str, Way] = {"plain": stream, "a mutated DataLoader": mutated_stream}
