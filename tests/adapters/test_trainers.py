"""A loop of one's own, Lightning and Transformers train the plan's batches at its rates.

60 samples in four epochs of 8, 8, 4 and 4 batches: η falls and b rises after the second one.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
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
    """What to train. ``stop``: save a checkpoint after that many updates, and go no further.

    With ``dropout`` there are random numbers of the loop's, too.
    """

    folder: Path
    workers: int = 0
    stop: int | None = None
    resume: bool = False
    gamma: float = 0.5
    dropout: bool = False

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


def loss_of(model: nn.Module, batch: Tensor, job: Job) -> Tensor:
    return model(nn.functional.dropout(batch / 100, training=job.dropout)).square().mean()


def ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def plain(job: Job) -> Ran:
    """The five lines, on two ranks. They stop and resume, each with its own random state."""
    if ranks() > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    ran = Ran()
    saved: Any = None
    torch.manual_seed(0)
    while not ran.weights:
        model = inner = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        if ranks() > 1:
            model = DistributedDataParallel(model)
        batches = igo.BatchSampler(job.plan, DATA, seed=0)
        schedule = igo.Schedule(optimizer, batches)
        loader = schedule(DataLoader(DATA, batch_sampler=batches))
        if saved:
            parts: Any = inner, optimizer, schedule
            for part, state in zip(parts, saved, strict=False):
                part.load_state_dict(state)
            torch.set_rng_state(saved[-1])
        for batch in chain.from_iterable(loader for _ in batches.epochs()):
            update = schedule.update
            optimizer.zero_grad()
            (loss_of(model, batch, job) * update.weight).backward()
            optimizer.step()
            ran.add(batch, update.batch_size, optimizer.param_groups[0]["lr"])
            if batches.updates == job.stop:
                states = [part.state_dict() for part in (inner, optimizer, schedule)]
                saved = copy.deepcopy([*states, torch.get_rng_state()])
                torch.manual_seed(1)
                break
        else:
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
            torch.manual_seed(self.global_step)
            return loss_of(self.network, batch, job)

        def test_step(self, batch: Tensor) -> None:
            self.log("loss", loss_of(self.network, batch, Job(job.folder)))

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

    at_stop = {"filename": "last", "every_n_train_steps": STOP} if job.stop else {}
    given = {"max_epochs": EPOCHS, "callbacks": [], **settings}
    checkpoints = ModelCheckpoint(job.folder, **(saving or at_stop))
    given["callbacks"] = [graduated, checkpoints, Recorder(), *given["callbacks"]]
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


def transformers(job: Job, **settings: Any) -> Ran:
    """The adapter's Trainer; ``settings`` are its arguments."""
    from transformers import TrainingArguments

    from igo.adapters.transformers import GraduatedTrainer

    ran = Ran()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"loss": loss_of(self.network, x, job)}

    class Recorded(GraduatedTrainer):
        def training_step(self, model: Any, inputs: Any, *given: Any) -> Any:
            if job.stop is not None and not job.resume and len(ran.rows) == job.stop:
                raise Killed
            loss = super().training_step(model, inputs, *given)
            rate = self.optimizer.param_groups[0]["lr"]
            assert self.schedule.learning_rate == rate
            ran.add(inputs["x"], self.update.batch_size, rate)
            return loss

        def compute_loss(self, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
            named["return_outputs"] = True  # as one that looks at the outputs
            return super().compute_loss(model, inputs, *given, **named)[0]

    arguments = TrainingArguments(
        str(job.folder), learning_rate=RATE, optim="sgd", max_grad_norm=0.0, save_steps=STOP,
        save_strategy="steps" if job.stop else "no", dataloader_num_workers=job.workers,
        remove_unused_columns=False, report_to="none", use_cpu=True, disable_tqdm=True, seed=0,
        **settings,
    )  # fmt: skip
    model, data = Model(), [{"x": sample} for sample in DATA]
    trainer = Recorded(model, arguments, train_dataset=data, plan=job.plan)
    assert arguments.max_steps == settings.get("max_steps", -1)
    with suppress(Killed):
        trainer.train(str(job.folder / f"checkpoint-{STOP}") if job.resume else None)
    ran.weights = [parameter.item() for parameter in model.parameters()]
    return ran


Way = Callable[[Job], Ran]
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, and of the workers


@pytest.fixture
def _theirs() -> None:
    warnings.simplefilter("ignore")
    pytest.importorskip("lightning")
    pytest.importorskip("transformers")


@pytest.mark.examples
@pytest.mark.usefixtures("_theirs")
@pytest.mark.parametrize("workers", [0, 4])
@pytest.mark.parametrize("way", [lightning, transformers])
def test_batches_and_rates_are_the_plans(way: Way, workers: int, tmp_path: Path) -> None:
    """With workers that fetch ahead, too: n is no multiple of b, and both change at one update."""
    job = Job(tmp_path, workers=workers)
    rows, stages = way(job).rows, job.plan.rows
    assert len({stage.b_m for stage in stages}) == len({stage.eta_m for stage in stages}) == 2
    planned = [stage for stage in stages for _ in range(stage.updates)]
    for row, stage in zip(rows, planned, strict=True):
        assert row.logged == len(row.samples)
        assert abs(len(row.samples) - N / stage.batches) < 1
        assert row.rate == pytest.approx(stage.eta_m, rel=1e-12)
    seen = [sample for row in rows for sample in row.samples]
    for start in range(0, EPOCHS * N, N):
        assert sorted(seen[start : start + N]) == list(range(N))


@pytest.mark.examples
@pytest.mark.usefixtures("_theirs")
@pytest.mark.parametrize(
    "settings",
    [{}, {"max_epochs": 2}, {"max_steps": 5}, {"max_steps": 22}],
    ids=["killed later", "whole epochs", "in the first epoch", "in the last"],
)
def test_the_last_checkpoint_goes_on_with_the_very_next_sample(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    whole, stop = lightning(Job(tmp_path, workers=2)).rows, None if settings else STOP
    with pytest.warns(igo.PlanWarning, match="ended after") if settings else nullcontext():
        before = lightning(Job(tmp_path, stop=stop), {"save_last": True}, **settings).rows
    after = lightning(Job(tmp_path, workers=2, resume=True)).rows
    assert before[: len(whole) - len(after)] + after == whole
    again = 2 if stop else 0  # of the third epoch
    assert len(before) + len(after) - len(whole) == again


@pytest.mark.examples
@pytest.mark.usefixtures("_theirs")
@pytest.mark.parametrize("way", [lightning, transformers])
def test_a_resume_in_mid_epoch_has_the_same_bits(way: Way, tmp_path: Path) -> None:
    """With Dropout: Lightning's is seeded in each step, Transformers saves the random state."""
    whole = way(Job(tmp_path, workers=2, dropout=True))
    before = way(Job(tmp_path, stop=STOP, dropout=True))
    after = way(Job(tmp_path, workers=2, dropout=True, resume=True))
    assert (before.rows + after.rows, after.weights) == (whole.rows, whole.weights)
    with pytest.raises(igo.PlanError, match="the checkpoint is of a plan with"):
        way(Job(tmp_path, resume=True, gamma=0.25))


def on_two_ranks(folder: Path, way: str, *arguments: str) -> list[Any]:
    more = {"GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "ways"}  # torchrun's
    return forge.results(folder, 2, "test_trainers.of_a_rank", way, str(folder), *arguments, **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [plain, *(pytest.param(way, marks=pytest.mark.examples) for way in (lightning, transformers))],
)
def test_two_ranks_train_as_one_process(way: Way, tmp_path: Path) -> None:
    """Shares are unequal in batches of 7: 4 and 3 samples, whose plain mean losses DDP averages."""
    alone, ranks = way(Job(tmp_path)), on_two_ranks(tmp_path, way.__name__)
    shares = [Ran([Row(*row) for row in rows], weights) for rows, weights in ranks]
    for whole, *parts in zip(alone.rows, *(share.rows for share in shares), strict=True):
        assert sorted(sample for part in parts for sample in part.samples) == whole.samples
        assert {part.rate for part in parts} == {whole.rate}
    for share in shares:
        assert share.weights == pytest.approx(alone.weights, rel=1e-12)


def of_a_rank(way: str, folder: str) -> Any:
    """What a rank saw, in plain containers."""
    warnings.simplefilter("ignore")
    if way == "prepared":
        return prepared()
    if way == "resumed":
        job = Job(Path(folder), dropout=True)
        return [plain(replace(job, stop=stop)).weights for stop in (None, STOP)]
    ways = {"plain": plain, "lightning": lightning, "transformers": transformers}
    ran = ways[way](Job(Path(folder)))
    return [tuple(row) for row in ran.rows], ran.weights


@pytest.mark.slow
def test_ranks_resume_each_with_its_random_state(tmp_path: Path) -> None:
    for whole, resumed in on_two_ranks(tmp_path, "resumed"):
        assert whole == resumed


def prepared() -> list[str]:
    """What is said to a loader that Accelerate would share among ranks once more, or would skip."""
    import accelerate

    batches, words = igo.BatchSampler(Job(Path()).plan, DATA), []
    schedule = igo.Schedule(torch.optim.SGD(network().parameters(), lr=RATE), batches)
    loader = DataLoader(DATA, batch_sampler=batches)
    theirs = accelerate.Accelerator(cpu=True).prepare(loader)
    for other in (theirs, accelerate.skip_first_batches(loader, 2)):
        with pytest.raises(TypeError) as raised:
            schedule(other)
        words.append(str(raised.value))
    return words


@pytest.mark.slow
@pytest.mark.examples
@pytest.mark.usefixtures("_theirs")
def test_accelerates_own_loaders_are_refused(tmp_path: Path) -> None:
    for words in on_two_ranks(tmp_path, "prepared"):
        kinds = [text.split()[5].rpartition(".")[2] for text in words]
        assert kinds == ["BatchSamplerShard:", "SkipBatchSampler:"]
        assert all("keep it from accelerator.prepare and skip_first_batches" in t for t in words)


@pytest.mark.examples
@pytest.mark.usefixtures("_theirs")
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
    with pytest.warns(igo.PlanWarning, match="after 3 of the plan's 24 updates"):
        transformers(Job(tmp_path), max_steps=3)
    for settings in ({"gradient_accumulation_steps": 2}, {"max_steps": 25}):
        with pytest.raises(UserError, match=rf"{next(iter(settings))}=.* the plan"):
            transformers(Job(tmp_path), **settings)
