"""A loop of one's own and Lightning train exactly the plan's batches at the plan's rates.

60 samples in four epochs of 8, 8, 4 and 4 batches: η falls and b rises after the second one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from forked import forge
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import igo
from igo.ground.errors import UserError
from igo.method.plan import Plan

N, EPOCHS, RATE = 60, 4, 0.1
STOP = 18  # updates: two into the third epoch, where b and η are others
DATA: Any = torch.arange(float(N), dtype=torch.float64).unsqueeze(1)  # sample i is the number i


@dataclass(frozen=True)
class Job:
    """What to train. ``stop``: save a checkpoint after that many updates, and go no further."""

    folder: Path
    workers: int = 0
    stop: int | None = None
    resume: bool = False
    gamma: float = 0.5

    @property
    def plan(self) -> Plan:
        return igo.plan(
            "step", n=N, epochs=EPOCHS, stages=2, learning_rate=RATE, batch_size=8,
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
    weights: list[float] = field(default_factory=list)

    def add(self, samples: Tensor, logged: float, rate: float) -> None:
        self.rows.append(Row(sorted(samples.flatten().int().tolist()), float(logged), float(rate)))


def network() -> nn.Module:
    model = nn.Linear(1, 1).double()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    return model


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch / 100).square().mean()


def ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def plain(job: Job) -> Ran:
    """The five lines, on two ranks."""
    model = inner = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    if ranks() > 1:
        torch.distributed.init_process_group("gloo")
        model = DistributedDataParallel(model)
    batches = igo.BatchSampler(job.plan, DATA, seed=0)
    loader = DataLoader(DATA, batch_sampler=batches)
    schedule = igo.Schedule(optimizer, batches)
    ran = Ran()
    for _ in batches.epochs():
        for batch in schedule(loader):
            update: Any = schedule.update
            optimizer.zero_grad()
            (loss_of(model, batch) * update.weight).backward()
            optimizer.step()
            ran.add(batch, update.batch_size, optimizer.param_groups[0]["lr"])
    ran.weights = [parameter.item() for parameter in inner.parameters()]
    return ran


class Killed(Exception):
    """The process ends here, as far as the training loop can tell."""


def lightning(job: Job, saving: Any = None, loader: Any = None, **settings: Any) -> Ran:
    """The callback and its loader; ``settings`` of the trainer, ``saving`` of its checkpoints."""
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from igo.adapters.lightning import Graduated

    ran = Ran()
    graduated = Graduated(job.plan, seed=0)

    class Data(LightningDataModule):
        def setup(self, stage: str) -> None:
            self.train = DATA

        def train_dataloader(self) -> DataLoader[Any]:
            return graduated.loader(
                self.train, num_workers=job.workers, persistent_workers=job.workers > 0
            )

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Tensor) -> Tensor:
            return loss_of(self.network, batch)

        def test_step(self, batch: Tensor) -> None:
            self.log("loss", loss_of(self.network, batch))

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
            assert float(metrics["eta_m"]) == pytest.approx(group["lr"], rel=1e-6)
            ran.add(batch, float(metrics["b_m"]), group["lr"])

    given = {"max_epochs": EPOCHS, "callbacks": [], **settings}
    given["callbacks"] = [
        graduated, ModelCheckpoint(job.folder, **(saving or {})), Recorder(), *given["callbacks"],
    ]  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", devices=ranks(), strategy="ddp" if ranks() > 1 else "auto",
        use_distributed_sampler=False, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=job.folder, **given,
    )  # fmt: skip
    module: Any = Module()
    data = {"train_dataloaders": loader} if loader else {"datamodule": Data()}
    try:
        trainer.fit(module, **data, ckpt_path=str(job.folder / "last.ckpt") if job.resume else None)
    except Killed:
        return ran
    trainer.test(module, DataLoader(DATA), verbose=False)
    ran.weights = [parameter.item() for parameter in module.parameters()]
    return ran


Way = Callable[[Job], Ran]
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, and of the workers


@pytest.fixture
def _lightning() -> None:
    warnings.simplefilter("ignore")
    pytest.importorskip("lightning")


@pytest.mark.examples
@pytest.mark.usefixtures("_lightning")
@pytest.mark.parametrize("workers", [0, 4])
def test_batches_and_rates_are_the_plans(workers: int, tmp_path: Path) -> None:
    """With workers that fetch ahead, too: n is no multiple of b, and both change at one update."""
    job = Job(tmp_path, workers=workers)
    rows, stages = lightning(job).rows, job.plan.rows
    assert len({stage.b_m for stage in stages}) == len({stage.eta_m for stage in stages}) == 2
    planned = [stage for stage in stages for _ in range(stage.updates)]
    for row, stage in zip(rows, planned, strict=True):
        assert row.logged == len(row.samples)
        assert abs(len(row.samples) - N / stage.batches) < 1
        assert row.rate == pytest.approx(stage.eta_m, rel=1e-12)
    seen = [sample for row in rows for sample in row.samples]
    for start in range(0, EPOCHS * N, N):
        assert sorted(seen[start : start + N]) == list(range(N))


LAST = {"save_last": True}


@pytest.mark.examples
@pytest.mark.usefixtures("_lightning")
@pytest.mark.parametrize(
    ("saving", "stop", "settings"),
    [
        ({"filename": "last", "every_n_train_steps": STOP}, STOP, {}),  # killed where it was saved
        (LAST, STOP, {}),  # killed later
        (LAST, None, {"max_epochs": 2}),
        (LAST, None, {"max_steps": 5}),  # in the first epoch
        (LAST, None, {"max_steps": 22}),  # in the last
    ],
)
def test_the_last_checkpoint_goes_on_with_the_very_next_sample(
    saving: dict[str, Any], stop: int | None, settings: dict[str, Any], tmp_path: Path
) -> None:
    """And a checkpoint of another schedule is refused."""
    whole = lightning(Job(tmp_path, workers=2)).rows
    with pytest.warns(igo.PlanWarning, match="ended after") if settings else nullcontext():
        before = lightning(Job(tmp_path, stop=stop), saving, **settings).rows
    with pytest.raises(igo.PlanError, match="the checkpoint is of a plan with"):
        lightning(Job(tmp_path, resume=True, gamma=0.25))
    after = lightning(Job(tmp_path, workers=2, resume=True)).rows
    assert before[: len(whole) - len(after)] + after == whole
    again = 2 if stop and saving is LAST else 0  # of the third epoch
    assert len(before) + len(after) - len(whole) == again


@pytest.mark.slow
@pytest.mark.parametrize("way", [plain, pytest.param(lightning, marks=pytest.mark.examples)])
def test_two_ranks_train_as_one_process(way: Way, tmp_path: Path) -> None:
    """Shares are unequal in batches of 7: 4 and 3 samples, whose plain mean losses DDP averages."""
    alone = way(Job(tmp_path))
    function, more = "test_lightning.of_a_rank", {"GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    more |= {"TORCHELASTIC_RUN_ID": "ways"}  # as torchrun
    ranks = forge.results(tmp_path, 2, function, way.__name__, str(tmp_path), **more)
    shares = [Ran([Row(*row) for row in rows], weights) for rows, weights in ranks]
    for whole, *parts in zip(alone.rows, *(share.rows for share in shares), strict=True):
        assert sorted(sample for part in parts for sample in part.samples) == whole.samples
        assert {part.rate for part in parts} == {whole.rate}
    for share in shares:
        assert share.weights == pytest.approx(alone.weights, rel=1e-12)


def of_a_rank(way: str, folder: str) -> tuple[list[tuple[Any, ...]], list[float]]:
    """What a rank saw, in plain containers."""
    warnings.simplefilter("ignore")
    ran = {"plain": plain, "lightning": lightning}[way](Job(Path(folder)))
    return [tuple(row) for row in ran.rows], ran.weights


@pytest.mark.examples
@pytest.mark.usefixtures("_lightning")
def test_a_trainer_that_would_change_the_plan_is_refused(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    changing = GradientAccumulationScheduler({2: 2})
    for settings, name in (
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches.* the plan"),
        ({"callbacks": [changing]}, "accumulate_grad_batches.* the plan"),
        ({"max_epochs": EPOCHS + 1}, "max_epochs=5.* the plan"),
        ({"max_epochs": -1, "max_steps": 10**6}, "max_epochs=-1.* the plan"),  # without an end
        ({"loader": DataLoader(DATA, 8)}, r"gave no batch for it.*graduated\.loader"),
    ):
        with pytest.raises((UserError, RuntimeError), match=name):
            lightning(Job(tmp_path), **settings)
