"""One schedule in a plain loop and in Lightning.

60 samples in four epochs: η falls and b rises after the second one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

import igo
from igo.method.plan import Plan

N, EPOCHS, RATE, RANKS = 60, 4, 0.1, 2
PATIENCE = 600  # seconds


@dataclass(frozen=True)
class Job:
    """What to train. ``stop``: save a checkpoint after that many updates, and go no further."""

    folder: str
    n: int = N
    workers: int = 0
    stop: int | None = None
    resume: bool = False
    gamma: float = 0.5

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def plan(self) -> Plan:
        return igo.plan(
            "step", n=self.n, epochs=EPOCHS, stages=2, learning_rate=RATE, batch_size=8,
            gamma=self.gamma, split=0.5,
        )  # fmt: skip


class Row(NamedTuple):
    """An update: the samples that it saw here, the batch size that was logged, the rate it had."""

    samples: list[int]
    logged: float
    rate: float


@dataclass
class Ran:
    """What was trained."""

    rows: list[Row] = field(default_factory=list)

    def add(self, samples: Tensor, logged: float, rate: float) -> None:
        self.rows.append(Row(sorted(samples.flatten().int().tolist()), float(logged), float(rate)))


class Killed(Exception):
    """The process ends here, as far as the training loop can tell."""


class Numbers(Dataset[Tensor]):
    """Sample i is the number i, so that a batch says what is in it."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([float(index)])


def network() -> nn.Module:
    """The smallest model that has a loss and a gradient."""
    return nn.Linear(1, 1)


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch / 1000).square().mean()


def plain(job: Job) -> Ran:
    """The five lines."""
    plan = job.plan
    model: torch.nn.Module = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    if ranks() > 1:
        torch.distributed.init_process_group("gloo")
        model = DistributedDataParallel(model)
    data = Numbers(job.n)
    batches = igo.BatchSampler(plan, data, seed=0)
    loader = DataLoader(
        data,
        batch_sampler=batches,
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
    )
    schedule = igo.Schedule(optimizer, batches)
    kept = job.path / "plain.pt"
    if job.resume:
        saved = torch.load(kept, weights_only=True)
        optimizer.load_state_dict(saved["optimizer"])
        batches.load_state_dict(saved["batches"])
    ran = Ran()
    for _ in batches.epochs():
        for batch in loader:
            update = schedule.step()
            loss = loss_of(model, batch) * update.weight
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ran.add(batch, update.batch_size, optimizer.param_groups[0]["lr"])
            if update.number == job.stop:
                state = {"optimizer": optimizer.state_dict(), "batches": batches.state_dict()}
                torch.save(state, kept)
                return ran
    return ran


def lightning(job: Job) -> Ran:
    """The callback and its loader."""
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from igo.adapters.lightning import Graduated

    ran = Ran()
    graduated = Graduated(job.plan, Numbers(job.n), seed=0)

    class Data(LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            return graduated.loader(num_workers=job.workers, persistent_workers=job.workers > 0)

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Tensor) -> Tensor:
            return loss_of(self.network, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    class Recorder(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            if job.stop is not None and not job.resume and len(ran.rows) == job.stop:
                raise Killed

        def on_train_batch_end(
            self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Tensor, index: int
        ) -> None:
            metrics, group = trainer.callback_metrics, trainer.optimizers[0].param_groups[0]
            assert float(metrics["eta_m"]) == _float32(group["lr"])
            ran.add(batch, float(metrics["b_m"]), group["lr"])

    saving = ModelCheckpoint(job.path, filename="c", every_n_train_steps=job.stop or 10**6)
    trainer = Trainer(
        max_epochs=EPOCHS, callbacks=[graduated, saving, Recorder()], accelerator="cpu",
        devices=ranks(), strategy="ddp" if ranks() > 1 else "auto", use_distributed_sampler=False,
        logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=job.path,
    )  # fmt: skip
    try:
        saved = str(job.path / "c.ckpt") if job.resume else None
        trainer.fit(Module(), datamodule=Data(), ckpt_path=saved)
    except Killed:
        pass
    return ran


def ranks() -> int:
    """How many processes torchrun has started, or what stands for it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _float32(number: float) -> float:
    return float(torch.tensor(number))


Way = Callable[[Job], Ran]
WAYS: dict[str, Way] = {
    "plain": plain,
    "lightning": lightning,
}


def on_ranks(way: Way, job: Job) -> list[Ran]:
    """Train in two forked processes, with the environment that torchrun gives; what each saw."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    context = multiprocessing.get_context("fork")  # the libraries are imported already
    started = [
        context.Process(target=_rank, args=(way, job, rank, port), daemon=True)
        for rank in range(RANKS)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(PATIENCE)
    for path in sorted(job.path.glob("error-*.txt")):
        raise RuntimeError(path.read_text())
    saved = [json.loads((job.path / f"rank-{rank}.json").read_text()) for rank in range(RANKS)]
    return [Ran([Row(*row) for row in rank["rows"]]) for rank in saved]


def _rank(way: Way, job: Job, rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(RANKS),
        LOCAL_WORLD_SIZE=str(RANKS), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="ways",
    )  # fmt: skip
    try:
        (job.path / f"rank-{rank}.json").write_text(json.dumps(asdict(way(job))))
    except BaseException:
        (job.path / f"error-{rank}.txt").write_text(traceback.format_exc())
        raise
