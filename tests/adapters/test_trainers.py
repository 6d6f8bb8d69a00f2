"""A loop of one's own, Lightning and Transformers train the plan's batches at its rates.

60 samples in four epochs of 8, 8, 4 and 4 batches: η falls and b rises after the second one.
"""

import copy
import json
import os
import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, product
from typing import Any, NamedTuple

import pytest
import torch
from conftest import ROOT, rounded
from forked import forge
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import igo
from igo.ground.errors import UserError
from igo.plans.plan import Plan

N, EPOCHS, RATE = 60, 4, 0.1
STOP = 18  # updates: two into the third epoch, where b and η are others
DATA: Any = torch.arange(float(N), dtype=torch.float64).unsqueeze(1)  # sample i is the number i


@dataclass(frozen=True)
class Job:
    """What to train. ``stop``: save a checkpoint after that many updates, and go no further.

    With ``dropout`` the loop draws random numbers, too. A device takes ``device_samples`` at once.
    With ``tokens`` sample i has 1 + i % 5 of them, and the loss is a mean over tokens.
    """

    workers: int = 0
    stop: int | None = None
    resume: bool = False
    gamma: float = 0.5
    dropout: bool = False
    device_samples: int | None = None
    tokens: bool = False
    backwards: bool = False  # The stages have the reversed order, so later epochs are longer.

    @property
    def plan(self) -> Plan:
        profile: Any = {"stages": 2, "gamma": self.gamma, "split": 0.5}
        plan = igo.plan("step", n=N, epochs=EPOCHS, learning_rate=RATE, batch_size=8, **profile)
        return plan.control("reversed") if self.backwards else plan


class Row(NamedTuple):
    """An update: the samples that it saw here, the batch size that was logged, the rate it had."""

    samples: list[int]
    logged: float
    rate: float


class Killed(Exception):
    pass


@dataclass
class Run:
    """The updates of a training, and the weights at its end."""

    rows: list[Row] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def end_at_stop(self, job: Job) -> None:
        """The process ends here, as far as the training loop can tell."""
        if job.stop is not None and not job.resume and len(self.rows) == job.stop:
            raise Killed

    def add(self, samples: Tensor, logged: float, rate: float) -> None:
        self.rows.append(Row(sorted(samples.flatten().int().tolist()), float(logged), float(rate)))


def network() -> nn.Module:
    model = nn.Linear(1, 1).double()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    return model


def loss_of(model: nn.Module, batch: Tensor, job: Job, items: Any = None) -> Tensor:
    squares = model(nn.functional.dropout(batch / 100, training=job.dropout)).square()
    if job.tokens:
        tokens = 1 + batch % 5
        return (squares * tokens).sum() / (tokens.sum() if items is None else items)
    return squares.mean()


def ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def plain(job: Job) -> Run:
    """The five lines, on two ranks. They stop and resume, each with its own random state."""
    if ranks() > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    run = Run()
    saved: Any = None
    torch.manual_seed(0)
    while not run.weights:
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
            run.add(batch, update.batch_size, optimizer.param_groups[0]["lr"])
            if batches.updates == job.stop:
                states = [part.state_dict() for part in (inner, optimizer, schedule)]
                saved = copy.deepcopy([*states, torch.get_rng_state()])
                torch.manual_seed(1)
                break
        else:
            run.weights = [parameter.item() for parameter in inner.parameters()]
    return run


def lightning(
    job: Job, saving: Any = None, loader: Any = None, automatic: bool = False, **settings: Any
) -> Run:
    """The callback and its loader; ``settings`` of the trainer, ``saving`` of its checkpoints.

    A DataModule makes the loader. With ``loader`` the trainer gets it, or what that makes of it.
    """
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from igo.adapters.lightning import Graduated

    run = Run()
    micro = job.device_samples and job.device_samples * ranks()
    graduated = Graduated(job.plan, seed=0, micro_batch_size=micro)
    parts: list[Tensor] = []

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
            self.automatic_optimization = automatic or not micro

        def training_step(self, batch: Tensor) -> Tensor | None:
            torch.manual_seed(self.global_step)
            loss = loss_of(self.network, batch, job)
            if self.automatic_optimization:
                return loss
            optimizer: Any = self.optimizers()
            with optimizer.toggle_model(sync_grad=graduated.update.is_last_part):
                self.manual_backward(loss)
            if graduated.update.is_last_part:
                optimizer.step()
                optimizer.zero_grad()
            return None

        def test_step(self, batch: Tensor) -> None:
            self.log("loss", loss_of(self.network, batch, Job()))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    class Recorder(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            run.end_at_stop(job)

        def on_train_batch_end(
            self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Tensor, index: int
        ) -> None:
            metrics, group = trainer.callback_metrics, trainer.optimizers[0].param_groups[0]
            assert float(metrics["eta_m"]) == pytest.approx(group["lr"], rel=1e-6)
            parts.append(batch)
            if graduated.update.is_last_part:
                run.add(torch.cat(parts), float(metrics["b_m"]), group["lr"])
                parts.clear()

    at_stop = {"filename": "last", "every_n_train_steps": STOP} if job.stop else {}
    checkpoints = ModelCheckpoint(".", **(saving or at_stop))
    callbacks = [graduated, checkpoints, Recorder(), *settings.pop("callbacks", [])]
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks(),
        strategy="ddp" if ranks() > 1 else "auto",
        use_distributed_sampler=False,
        default_root_dir=".",
        callbacks=callbacks,
        **{"max_epochs": EPOCHS, **quiet, **settings},
    )
    module: Any = Module()
    if callable(loader):
        loader = loader(graduated.loader(DATA))
    data = {"train_dataloaders": loader} if loader else {"datamodule": Data()}
    try:
        trainer.fit(module, **data, ckpt_path="last.ckpt" if job.resume else None)
    except Killed:
        return run
    trainer.test(module, DataLoader(DATA), verbose=False)
    run.weights = [parameter.item() for parameter in module.parameters()]
    return run


def transformers(job: Job, **settings: Any) -> Run:
    """The adapter's Trainer; ``settings`` are its arguments."""
    from transformers import TrainingArguments

    from igo.adapters.transformers import GraduatedTrainer

    run = Run()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor, **settings: Any) -> dict[str, Tensor]:
            return {"loss": loss_of(self.network, x, job, settings.get("num_items_in_batch"))}

    class Recorded(GraduatedTrainer):
        def training_step(self, model: Any, inputs: Any, *arguments: Any) -> Any:
            run.end_at_stop(job)
            self.samples: list[Tensor] = []
            loss = super().training_step(model, inputs, *arguments)
            rate = self.optimizer.param_groups[0]["lr"]
            assert self.schedule.learning_rate == rate
            run.add(torch.cat(self.samples), self.update.batch_size, rate)
            return loss

        def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **settings: Any) -> Any:
            self.samples.append(inputs["x"])
            assert len(inputs["x"]) <= (job.device_samples or N)
            settings["return_outputs"] = True  # A Trainer may look at the outputs.
            return super().compute_loss(model, inputs, *arguments, **settings)[0]

    arguments = TrainingArguments(
        ".",
        learning_rate=RATE,
        optim="sgd",
        max_grad_norm=0.0,
        save_steps=STOP,
        save_strategy="steps" if job.stop else "no",
        dataloader_num_workers=job.workers,
        remove_unused_columns=False,
        per_device_train_batch_size=job.device_samples or N,
        ignore_data_skip=job.device_samples is not None,  # This has no effect.
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
        **settings,
    )
    model, data = Model(), [{"x": sample} for sample in DATA]
    if job.tokens:  # Trainer counts labels other than -100.
        five = torch.arange(5)
        data = [{"x": x, "labels": five.where(five <= x % 5, -100)} for x in DATA]
    plan: Any = job.plan if job.stop else {N: job.plan}.__getitem__  # or a function of n
    trainer = Recorded(model, arguments, train_dataset=data, plan=plan)
    assert arguments.max_steps == settings.get("max_steps", -1)
    with suppress(Killed):
        trainer.train(f"checkpoint-{STOP}" if job.resume else None)
    run.weights = [parameter.item() for parameter in model.parameters()]
    return run


Way = Callable[[Job], Run]
IN_PARTS: Any = {"device_samples": 3}  # batches have 7, 8 and 15 samples
OF_TOKENS = (transformers, {**IN_PARTS, "tokens": True})
ADAPTERS = [*product((lightning, transformers), ({}, IN_PARTS)), OF_TOKENS]
pytestmark = pytest.mark.filterwarnings("ignore")  # trainers and workers warn


@pytest.fixture
def _trainers() -> None:
    warnings.simplefilter("ignore")
    pytest.importorskip("lightning")
    pytest.importorskip("transformers")


@pytest.mark.parametrize("way", [lightning, transformers])
def test_an_adapter_trains_the_plan(way: Way) -> None:
    pytest.importorskip(way.__name__)
    loop, run = plain(Job()), way(Job())
    assert (len(run.rows), run.rows) == (24, loop.rows)
    assert run.weights == rounded(loop.weights)


@pytest.mark.usefixtures("_trainers")
def test_lightning_trains_epochs_that_are_longer() -> None:
    """It asks a loader that it was given directly for the length of each epoch.

    No checkpoint is saved at the end of an epoch, which would begin the next one.
    """
    saving = {"every_n_train_steps": 100}
    for device_samples in (None, 3):
        job = Job(backwards=True, device_samples=device_samples)
        loop = plain(replace(job, device_samples=None))
        assert lightning(job, saving, loader=lambda loader: loader).rows == loop.rows


@pytest.mark.examples
@pytest.mark.usefixtures("_trainers")
@pytest.mark.parametrize(
    "settings",
    [{}, {"max_epochs": 2}, {"max_steps": 5}, {"max_steps": 22}],
    ids=["killed later", "whole epochs", "in the first epoch", "in the last"],
)
def test_the_last_checkpoint_goes_on_with_the_very_next_sample(settings: dict[str, Any]) -> None:
    rows, stop = lightning(Job(workers=2)).rows, None if settings else STOP
    with pytest.warns(igo.PlanWarning, match="ended after") if settings else nullcontext():
        early_rows = lightning(Job(stop=stop), {"save_last": True}, **settings).rows
    late_rows = lightning(Job(workers=2, resume=True)).rows
    assert early_rows[: len(rows) - len(late_rows)] + late_rows == rows
    # A kill loses the two updates of the third epoch.
    lost_updates = 2 if stop else 0
    assert len(early_rows) + len(late_rows) - len(rows) == lost_updates


@pytest.mark.examples
@pytest.mark.usefixtures("_trainers")
@pytest.mark.parametrize(("way", "options"), ADAPTERS)
def test_a_resume_in_mid_epoch_has_the_same_bits(way: Way, options: dict[str, Any]) -> None:
    """With Dropout: Lightning's is seeded in each step, Transformers saves the random state.

    Batches, rates and, without Dropout, weights are those of whole batches in a loop of one's own.
    Workers fetch ahead: n is no multiple of b, and both b and η change at one update.
    """
    job = Job(dropout=not options, **options)
    run = way(replace(job, workers=2))
    stopped_run = way(replace(job, stop=STOP))
    resumed_run = way(replace(job, workers=2, resume=True))
    assert stopped_run.rows + resumed_run.rows == run.rows
    assert resumed_run.weights == run.weights
    loop = plain(replace(job, device_samples=None))
    assert run.rows == loop.rows
    if options:
        assert run.weights == rounded(loop.weights)
    with pytest.raises(igo.PlanError, match="the checkpoint is of a plan with"):
        way(Job(resume=True, gamma=0.25))


def on_two_ranks(function: str, *arguments: str) -> list[Any]:
    torchrun = {"GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "ways"}
    return forge.results(2, f"test_trainers.{function}", *arguments, **torchrun)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "options"),
    [(plain, {}), *(pytest.param(*case, marks=pytest.mark.examples) for case in ADAPTERS)],
)
def test_two_ranks_train_as_one_process(way: Way, options: dict[str, Any]) -> None:
    """Shares are unequal in batches of 7: 4 and 3 samples, whose plain mean losses DDP averages.

    In parts of at most 3 both ranks have two.
    """
    run = plain(Job(**{**options, "device_samples": None}))
    ranks = on_two_ranks("trained", way.__name__, json.dumps(options))
    shares = [Run([Row(*row) for row in rows], weights) for rows, weights in ranks]
    for row, *parts in zip(run.rows, *(share.rows for share in shares), strict=True):
        assert sorted(sample for part in parts for sample in part.samples) == row.samples
        assert {part.rate for part in parts} == {row.rate}
    for share in shares:
        assert share.weights == rounded(run.weights)


def trained(way: str, options: str) -> Any:
    """The batches and weights of a rank, in plain containers."""
    warnings.simplefilter("ignore")
    ways = {"plain": plain, "lightning": lightning, "transformers": transformers}
    run = ways[way](Job(**json.loads(options)))
    return [tuple(row) for row in run.rows], run.weights


def resumed() -> list[list[float]]:
    """The weights of a rank, without a stop and with one."""
    job = Job(dropout=True)
    return [plain(replace(job, stop=stop)).weights for stop in (None, STOP)]


@pytest.mark.slow
def test_ranks_resume_each_with_its_random_state() -> None:
    for weights, resumed_weights in on_two_ranks("resumed"):
        assert weights == resumed_weights


@pytest.mark.examples
@pytest.mark.usefixtures("_trainers")
def test_accelerates_own_loaders_are_refused() -> None:
    """One that shares each batch among ranks once more, and one that skips batches."""
    from accelerate.data_loader import prepare_data_loader, skip_first_batches

    batches = igo.BatchSampler(Job().plan, DATA)
    schedule = igo.Schedule(torch.optim.SGD(network().parameters(), lr=RATE), batches)
    loader = DataLoader(DATA, batch_sampler=batches)
    shared_loader = prepare_data_loader(loader, num_processes=2, process_index=0)
    for other_loader in (shared_loader, skip_first_batches(loader, 2)):
        with pytest.raises(TypeError, match=r"(BatchSamplerShard|SkipBatchSampler): .*keep it"):
            schedule(other_loader)


@pytest.mark.examples
@pytest.mark.usefixtures("_trainers")
def test_a_trainer_that_would_change_the_plan_is_refused() -> None:
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    accumulation = GradientAccumulationScheduler({2: 2})
    for settings, name in (
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches.* the plan"),
        ({"callbacks": [accumulation]}, "accumulate_grad_batches.* the plan"),
        ({"max_epochs": EPOCHS + 1}, "max_epochs=5.* the plan"),
        ({"max_epochs": -1, "max_steps": 10**6}, "max_epochs=-1.* the plan"),
        ({"loader": DataLoader(DATA, 8)}, r"gave no batch for it.*graduated\.loader"),
    ):
        with pytest.raises((UserError, RuntimeError), match=name):
            lightning(Job(), **settings)
    with pytest.raises(UserError, match="micro_batch_size needs manual optimization"):
        lightning(Job(**IN_PARTS), automatic=True)
    with pytest.warns(igo.PlanWarning, match="after 3 of the plan's 24 updates"):
        transformers(Job(), max_steps=3)
    with pytest.raises(UserError, match="SequentialSampler orders the samples"):
        transformers(Job(), train_sampling_strategy="sequential")
    with pytest.raises(UserError, match=r"max_steps=25: the plan has 24"):
        transformers(Job(), max_steps=25)


def test_the_pages_mean_over_tokens_is_that_of_whole_batches() -> None:
    page = (ROOT / "docs" / "processes.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec("".join(blocks[:2]), names)
    model = copy.deepcopy(names["model"])
    exec(next(block for block in blocks if "tokens" in block), names)
    batches = igo.BatchSampler(names["plan"], names["texts"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = igo.Schedule(optimizer, batches)(DataLoader(names["texts"], batch_sampler=batches))
    for inputs, real in chain.from_iterable(loader for _ in batches.epochs()):
        optimizer.zero_grad()
        model(inputs)[real].square().mean().backward()
        optimizer.step()
    pairs = zip(names["model"].parameters(), model.parameters(), strict=True)
    for page_parameter, parameter in pairs:
        torch.testing.assert_close(page_parameter, parameter)
