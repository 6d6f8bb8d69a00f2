"""What else changes a batch size in one's own loop, each as its documentation says to use it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from contract.job import (
    CHANGE,
    EPOCHS,
    FIRST_RATE,
    LARGE,
    MIDDLE,
    SECOND_RATE,
    SMALL,
    Job,
    Killed,
    Numbers,
    Ran,
    loss_of,
    network,
)

KEPT = "checkpoint.pt"


def _loader(job: Job, batch_size: int = SMALL) -> DataLoader[Tensor]:
    """Shuffled by one seed for all runs, so that two of them can be compared."""
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        Numbers(job.n), batch_size, shuffle=True, num_workers=job.workers, generator=generator,
        persistent_workers=job.persistent,
    )  # fmt: skip


def _update(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor) -> None:
    optimizer.zero_grad()
    loss_of(model, batch).backward()
    optimizer.step()


def bs_scheduler(job: Job) -> Ran:
    """StepBS stepped once an epoch, or by the update; its state_dict in the checkpoint."""
    from bs_scheduler import StepBS

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=FIRST_RATE)
    loader = _loader(job)
    steps = MIDDLE if job.middle else CHANGE - 1
    scheduler = StepBS(loader, step_size=steps, gamma=job.large / SMALL)
    start, kept = 0, job.path / KEPT
    if job.resume:
        saved = torch.load(kept, weights_only=False)
        scheduler.load_state_dict(saved["scheduler"])
        start = saved["epoch"]
    ran = Ran()
    for epoch in range(start, job.epochs):
        for batch in loader:
            _update(model, optimizer, batch)
            ran.add(batch, scheduler.batch_size, FIRST_RATE)
            if job.middle:
                scheduler.step()
            if len(ran.rows) == job.stop and not job.resume:
                torch.save({"scheduler": scheduler.state_dict(), "epoch": epoch}, kept)
                return ran
        if not job.middle:
            scheduler.step()
    return ran


def ignite(job: Job) -> Ran:
    """BatchSizeScheduler at epochs' starts or iterations' ends; state_dict of it and of Engine."""
    from ignite.engine import Engine, Events
    from ignite.handlers import BatchSizeScheduler

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=FIRST_RATE)
    loader = _loader(job)
    ran = Ran()

    def update(engine: Engine, batch: Tensor) -> None:
        _update(model, optimizer, batch)
        ran.add(batch, sampler.batch_size, FIRST_RATE)

    sampler: Any = loader.batch_sampler
    trainer = Engine(update)
    if job.middle:
        scheduler = BatchSizeScheduler(loader, lambda i: SMALL if i < MIDDLE - 1 else LARGE)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, scheduler)
    else:
        scheduler = BatchSizeScheduler(loader, lambda index: job.batch_size(index + 1))
        trainer.add_event_handler(Events.EPOCH_STARTED, scheduler)
    kept = job.path / KEPT
    if job.resume:
        saved = torch.load(kept, weights_only=False)
        trainer.load_state_dict(saved["trainer"])
        scheduler.load_state_dict(saved["scheduler"])

    @trainer.on(Events.ITERATION_COMPLETED)
    def kill(engine: Engine) -> None:
        if len(ran.rows) == job.stop and not job.resume:
            state = {"trainer": engine.state_dict(), "scheduler": scheduler.state_dict()}
            torch.save(state, kept)
            raise Killed

    try:
        trainer.run(loader, max_epochs=job.epochs)
    except Killed:
        return ran
    ran.promised = trainer.state.epoch_length * job.epochs
    return ran


def mutated(job: Job) -> Ran:
    """loader.batch_sampler.batch_size set before the second stage's first epoch, or update."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=FIRST_RATE)
    loader = _loader(job)
    sampler: Any = loader.batch_sampler
    start, kept = 1, job.path / KEPT
    if job.resume:
        start = torch.load(kept, weights_only=True)["epoch"]
    ran = Ran(promised=sum(-(-job.n // job.batch_size(e)) for e in range(1, EPOCHS + 1)))
    for epoch in range(start, job.epochs + 1):
        sampler.batch_size = job.batch_size(epoch)
        for batch in loader:
            _update(model, optimizer, batch)
            ran.add(batch, sampler.batch_size, FIRST_RATE)
            if job.middle and len(ran.rows) == MIDDLE:
                sampler.batch_size = LARGE
            if len(ran.rows) == job.stop and not job.resume:
                torch.save({"epoch": epoch}, kept)
                return ran
    return ran


def lightning(job: Job) -> Ran:
    """GradientAccumulationScheduler({2: 2}): from the third epoch two batches make an update."""
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint

    ran, parts = Ran(), list[Tensor]()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Tensor) -> Tensor:
            parts.append(batch)
            return loss_of(self.network, batch)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=FIRST_RATE)
            if not job.rate:
                return optimizer
            scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [16], gamma=0.5)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
            }

    class Recorder(Callback):
        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            ran.promised = int(trainer.estimated_stepping_batches)

        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            if job.stop and not job.resume and trainer.global_step == job.stop:
                raise Killed

        def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if rates:  # an update was made
                logged = SMALL // ranks * trainer.accumulate_grad_batches
                ran.add(torch.cat(parts), logged, rates.pop())
                parts.clear()

    rates: list[float] = []
    schedule = GradientAccumulationScheduler(
        {0: 1} if job.rate else {0: 1, CHANGE - 1: job.large // SMALL}
    )
    saving = ModelCheckpoint(job.path, filename="c", every_n_train_steps=job.stop or 10**6)
    trainer = Trainer(
        max_epochs=EPOCHS, callbacks=[schedule, Recorder(), saving], accelerator="cpu",
        devices=ranks, strategy="ddp" if ranks > 1 else "auto", logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=job.path,
    )  # fmt: skip
    try:
        saved = str(job.path / "c.ckpt") if job.resume else None
        trainer.fit(Module(), _loader(job, SMALL // ranks), ckpt_path=saved)
    except Killed:
        pass
    return ran


def accelerate(job: Job) -> Ran:
    """A loader prepared for each stage; split_batches: sizes are global; its seedable sampler."""
    return _accelerate(job, split=True)


def accelerate_default(job: Job) -> Ran:
    """The same with Accelerate's default, by which a loader's batch is a process's own."""
    return _accelerate(job, split=False)


def _accelerate(job: Job, split: bool) -> Ran:
    from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches

    configuration = DataLoaderConfiguration(
        split_batches=split, use_seedable_sampler=True, data_seed=0
    )
    accelerator = Accelerator(cpu=True, dataloader_config=configuration)
    bare = network()
    optimizer: Any = torch.optim.SGD(bare.parameters(), lr=FIRST_RATE)
    scheduler: Any = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, [16 if job.rate else 10**6], gamma=SECOND_RATE / FIRST_RATE
    )
    model, optimizer, scheduler = accelerator.prepare(bare, optimizer, scheduler)
    processes = accelerator.num_processes
    loaders: dict[int, Any] = {  # by the global batch size
        size: accelerator.prepare(_loader(job, size if split else size // processes))
        for size in (SMALL, job.large)
    }
    start, done = 1, 0
    if job.resume:
        accelerator.load_state(str(job.path / "state"))
        start, done = CHANGE, (job.stop or 0) - 16
    ran = Ran(promised=sum(len(loaders[job.batch_size(e)]) for e in range(1, EPOCHS + 1)))
    for epoch in range(start, EPOCHS + 1):
        size = job.batch_size(epoch)
        loader = loaders[size]
        loader.set_epoch(epoch)
        if done and epoch == start:
            loader = skip_first_batches(loader, done)
        for batch in loader:
            accelerator.backward(loss_of(model, batch))
            optimizer.step()
            ran.add(batch, size / processes, optimizer.param_groups[0]["lr"])
            scheduler.step()
            optimizer.zero_grad()
            if len(ran.rows) == job.stop and not job.resume:
                accelerator.save_state(str(job.path / "state"))
                accelerator.free_memory()
                return ran
    accelerator.free_memory()
    return ran


class Growing:
    """A batch sampler of one's own, whose batch size changes between epochs."""

    drop_last = False

    def __init__(self, job: Job) -> None:
        self.job, self.batch_size = job, SMALL
        generator = torch.Generator().manual_seed(0)
        self.sampler = RandomSampler(range(job.n), generator=generator)

    def __len__(self) -> int:
        return math.ceil(self.job.n / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(BatchSampler(self.sampler, self.batch_size, drop_last=False))


def accelerate_growing(job: Job) -> Ran:
    """One loader whose batch sampler grows, prepared once, split_batches."""
    from accelerate import Accelerator, DataLoaderConfiguration

    configuration = DataLoaderConfiguration(split_batches=True)
    accelerator = Accelerator(cpu=True, dataloader_config=configuration)
    bare, sampler = network(), Growing(job)
    optimizer: Any = torch.optim.SGD(bare.parameters(), lr=FIRST_RATE)
    loader: Any = DataLoader(Numbers(job.n), batch_sampler=sampler, num_workers=job.workers)
    model, optimizer, loader = accelerator.prepare(bare, optimizer, loader)
    ran = Ran(promised=sum(-(-job.n // job.batch_size(e)) for e in range(1, EPOCHS + 1)))
    for epoch in range(1, EPOCHS + 1):
        sampler.batch_size = job.batch_size(epoch)
        for batch in loader:
            accelerator.backward(loss_of(model, batch))
            optimizer.step()
            optimizer.zero_grad()
            ran.add(batch, sampler.batch_size / accelerator.num_processes, FIRST_RATE)
    accelerator.free_memory()
    return ran


WAYS = {
    "bs-scheduler": bs_scheduler,
    "ignite": ignite,
    "a mutated DataLoader": mutated,
    "GradientAccumulationScheduler": lightning,
    "Accelerate, split_batches": accelerate,
    "Accelerate, by default": accelerate_default,
    "Accelerate, a sampler that grows": accelerate_growing,
}
ALONE = ("bs-scheduler", "ignite", "a mutated DataLoader")  # they know nothing of other processes
IN_MIDDLE = ALONE  # the others change b between epochs alone, or have a loader a stage
NOT_ASKED = {  # its batches alone are the question
    "Accelerate, a sampler that grows": (
        "resumes to the sample",
        "η changes once",
        "another schedule refused",
    ),
}
PACKAGES = {
    "bs-scheduler": "bs-scheduler",
    "ignite": "pytorch-ignite",
    "a mutated DataLoader": "torch",
    "GradientAccumulationScheduler": "lightning",
    "Accelerate, split_batches": "accelerate",
    "Accelerate, by default": "accelerate",
    "Accelerate, a sampler that grows": "accelerate",
}
