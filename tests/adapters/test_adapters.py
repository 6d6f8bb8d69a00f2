"""What other trainers would do to the plan's updates is refused, or warned of where it is meant."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from ways import Job, Numbers, Ran, loss_of, network, on_ranks, ranks

import igo
from igo.ground.errors import UserError

pytestmark = [
    pytest.mark.examples,
    pytest.mark.filterwarnings("ignore"),  # theirs
    pytest.mark.filterwarnings("error::igo.method.arguments.PlanWarning"),
]
N, RATE = 64, 0.1


def a_plan(n: int = N, rate: float = RATE, epochs: int = 4) -> Any:
    return igo.plan("step", gamma=0.7, n=n, epochs=epochs, learning_rate=rate, batch_size=8)


def sharded(job: Job) -> Ran:
    """accelerator.prepare, as Accelerate's documentation has it, instead of the adapter's."""
    return _refused(job, first=False)


def twice(job: Job) -> Ran:
    """Prepared by the adapter, then once more by Accelerate."""
    return _refused(job, first=True)


def _refused(job: Job, first: bool) -> Ran:
    from accelerate import Accelerator, DataLoaderConfiguration
    from igo.adapters.accelerate import prepare

    settings = DataLoaderConfiguration(even_batches=False)  # else Accelerate refuses by itself
    accelerator = Accelerator(cpu=True, dataloader_config=settings)
    model, batches = network(), igo.BatchSampler(job.plan)
    loader: Any = DataLoader(Numbers(job.n), batch_sampler=batches)
    if first:
        loader = prepare(accelerator, loader)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    _, _, loader = accelerator.prepare(model, optimizer, loader)
    with pytest.raises(RuntimeError, match=r"BatchSamplerShard wraps.*accelerate\.prepare"):
        next(iter(loader))
    return Ran()


@pytest.mark.parametrize("way", [sharded, twice])
def test_accelerate_does_not_shard_the_batches_again(way: Any, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    on_ranks(way, Job(str(tmp_path)))


def test_accelerate_does_not_skip_batches_that_the_sampler_has_skipped() -> None:
    accelerate = pytest.importorskip("accelerate")
    from igo.adapters.accelerate import prepare

    accelerator = accelerate.Accelerator(cpu=True)
    batches = igo.BatchSampler(a_plan())
    loader = prepare(accelerator, DataLoader(Numbers(N), batch_sampler=batches))
    state = {**batches.state_dict(), "updates": 2}
    batches.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"SkipBatchSampler wraps.*skip_first_batches"):
        next(iter(accelerate.skip_first_batches(loader, 2)))
    assert len(next(iter(loader))) == 8


@pytest.mark.parametrize("samples", [32, 100])
def test_accelerate_wants_the_plans_samples(samples: int) -> None:
    accelerate = pytest.importorskip("accelerate")
    from igo.adapters.accelerate import prepare

    loader = DataLoader(Numbers(samples), batch_sampler=igo.BatchSampler(a_plan()))
    with pytest.raises(igo.PlanError, match=f"n=64.*{samples} samples"):
        prepare(accelerate.Accelerator(cpu=True), loader)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": loss_of(self.network, x)}


def hf(folder: Path, plan: Any = None, *, n: int = N, named: Any = None, **settings: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    from igo.adapters.transformers import Trainer

    given = {"learning_rate": RATE, "optim": "sgd", "report_to": "none", "use_cpu": True,
             "disable_tqdm": True, "save_strategy": "no", **settings}  # fmt: skip
    data = [{"x": torch.tensor([float(i)]), "labels": 0} for i in range(n)]
    arguments = transformers.TrainingArguments(str(folder), **given)
    return Trainer(Model(), arguments, train_dataset=data, plan=plan or a_plan(), **(named or {}))


@pytest.mark.parametrize(
    "settings",
    [
        {"warmup_steps": 10},
        {"warmup_steps": 0.1},
        {"lr_scheduler_type": "cosine"},
        {"num_train_epochs": 2},
        {"per_device_train_batch_size": 16},
        {"train_sampling_strategy": "group_by_length"},
        {"dataloader_drop_last": True},
        {"gradient_accumulation_steps": 2},
        {"max_steps": 1000},
    ],
)
def test_arguments_that_trainer_would_ignore_are_refused(settings: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        hf(tmp_path, **settings)


def test_a_number_of_epochs_that_is_the_plans_is_taken_and_stays(tmp_path: Path) -> None:
    trainer = hf(tmp_path, num_train_epochs=4)
    trainer.train()
    assert trainer.state.global_step == a_plan().updates


def test_fewer_steps_than_the_plans_are_warned_of(tmp_path: Path) -> None:
    with pytest.warns(igo.PlanWarning, match="max_steps=5: training ends before"):
        hf(tmp_path, max_steps=5)


def test_a_scheduler_of_its_own_is_refused(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    with pytest.raises(UserError, match="has a scheduler, and the plan is one"):
        hf(tmp_path, named={"optimizers": (optimizer, scheduler)})


def test_trainer_wants_the_plans_samples(tmp_path: Path) -> None:
    with pytest.raises(igo.PlanError, match=r"n=64.*100 samples"):
        hf(tmp_path, n=100)


@pytest.mark.parametrize("other", ["plan", "rate", "seed"])
def test_a_checkpoint_of_another_plan_is_refused(other: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the few steps
        hf(tmp_path, max_steps=5, save_strategy="steps", save_steps=5, seed=0).train()
    checkpoint = str(tmp_path / "checkpoint-5")
    changed = {
        "plan": lambda: hf(tmp_path, a_plan(epochs=5), seed=0),
        "rate": lambda: hf(tmp_path, a_plan(rate=0.2), learning_rate=0.2, seed=0),
        "seed": lambda: hf(tmp_path, seed=1),
    }
    with pytest.raises(igo.PlanError, match=r"the checkpoint (was made with|is of a plan with)"):
        changed[other]().train(resume_from_checkpoint=checkpoint)
    same = hf(tmp_path, seed=0)
    same.train(resume_from_checkpoint=checkpoint)
    assert same.state.global_step == same.batches.updates == a_plan().updates


def test_an_optimizer_without_a_rate_is_refused_and_a_rounded_one_taken() -> None:
    transformers = pytest.importorskip("transformers")
    batches = igo.BatchSampler(a_plan())
    adafactor = transformers.optimization.Adafactor(network().parameters(), lr=None)
    with pytest.raises(igo.PlanError, match=r"learning_rate=0\.1.*lr=None"):
        igo.Schedule(adafactor, batches)
    rate = torch.tensor(RATE, dtype=torch.bfloat16)
    igo.Schedule(torch.optim.SGD(network().parameters(), lr=rate), batches).step()
    rate = torch.tensor(0.102, dtype=torch.bfloat16)
    with pytest.raises(igo.PlanError, match="learning_rate"):
        igo.Schedule(torch.optim.SGD(network().parameters(), lr=rate), batches)


def fit(
    folder: Path,
    graduated: Any,
    loader: Any = None,
    *,
    data: Any = None,
    model: Any = None,
    **settings: Any,
) -> Any:
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = model or network()

        def training_step(self, batch: Tensor) -> Tensor:
            return loss_of(self.network, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    class Data(lightning.LightningDataModule):  # type: ignore[misc,name-defined]
        def train_dataloader(self) -> Any:
            return loader or graduated.loader(Numbers(N) if data is None else data)

    given = {"max_epochs": 4, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
             "enable_checkpointing": False, "enable_model_summary": False,
             "use_distributed_sampler": False, **settings}  # fmt: skip
    trainer = lightning.Trainer(callbacks=[graduated], default_root_dir=folder, **given)
    trainer.fit(Module(), datamodule=Data())
    return trainer


def graduated(plan: Any = None) -> Any:
    pytest.importorskip("lightning")
    from igo.adapters.lightning import Graduated

    return Graduated(plan or a_plan())


@pytest.mark.parametrize("settings", [{"limit_train_batches": 3}, {"max_epochs": 2}])
def test_a_trainer_that_ends_before_the_plan_is_warned_of(settings: Any, tmp_path: Path) -> None:
    with pytest.warns(igo.PlanWarning, match=f"{next(iter(settings))}.*ends before the plan"):
        fit(tmp_path, graduated(), **settings)


def test_an_ordinary_loader_beside_the_callback_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"another training loader.*graduated\.loader"):
        fit(tmp_path, graduated(), DataLoader(Numbers(N), batch_size=8))


def test_lightning_wants_the_plans_samples_and_no_accumulation(tmp_path: Path) -> None:
    with pytest.raises(igo.PlanError, match=r"n=64.*32 samples"):
        graduated().loader(Numbers(32))
    with pytest.raises(UserError, match=r"accumulate_grad_batches.*parts"):
        fit(tmp_path, graduated(), accumulate_grad_batches=2)


def in_lightning(job: Job) -> Ran:
    """Train on this rank's shares of batches of 7; the weights at the end."""
    model = network().double()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    plan = igo.plan("constant", n=21, epochs=2, learning_rate=RATE, batch_size=7)
    settings = {"devices": 2, "strategy": "ddp"} if ranks() > 1 else {}
    data: Any = torch.linspace(-1000, 3000, 21, dtype=torch.float64).unsqueeze(1)
    fit(job.path, graduated(plan), data=data, model=model, max_epochs=2, **settings)
    ran = Ran()
    for parameter in model.parameters():
        ran.add(torch.zeros(1), parameter.item(), RATE)
    return ran


def test_two_ranks_of_unequal_shares_train_as_one_process(tmp_path: Path) -> None:
    """Batches of 7 on two ranks: 4 and 3 samples, whose plain mean losses DDP averages."""
    pytest.importorskip("lightning")
    alone = in_lightning(Job(str(tmp_path)))
    for rank in on_ranks(in_lightning, Job(str(tmp_path))):
        for (_, expected, _), (_, value, _) in zip(alone.rows, rank.rows, strict=True):
            assert value == pytest.approx(expected, rel=1e-12)
