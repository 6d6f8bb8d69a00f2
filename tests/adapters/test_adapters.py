"""What Lightning would do to the plan's updates is refused, and unequal shares are weighted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ways import Job, Numbers, Ran, loss_of, network, on_ranks, ranks

import igo
from igo.ground.errors import UserError

pytestmark = [pytest.mark.examples, pytest.mark.filterwarnings("ignore")]  # theirs
N, RATE = 64, 0.1


def fit(folder: Path, plan: Any, data: Any, model: Any = None, **settings: Any) -> Any:
    lightning = pytest.importorskip("lightning.pytorch")
    from igo.adapters.lightning import Graduated

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = model or network()

        def training_step(self, batch: Tensor) -> Tensor:
            return loss_of(self.network, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    graduated = Graduated(plan, data)
    given = {"max_epochs": 4, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
             "enable_checkpointing": False, "enable_model_summary": False,
             "use_distributed_sampler": False, **settings}  # fmt: skip
    trainer = lightning.Trainer(callbacks=[graduated], default_root_dir=folder, **given)
    trainer.fit(Module(), graduated.loader())
    return trainer


def test_a_plain_loader_is_enough(tmp_path: Path) -> None:
    plan = igo.plan("step", gamma=0.7, n=N, epochs=4, batch_size=8)
    assert fit(tmp_path, plan, Numbers(N)).global_step == plan.updates


@pytest.mark.parametrize(
    "settings",
    [{"accumulate_grad_batches": 2}, {"max_epochs": 5}, {"max_epochs": -1, "max_steps": 10**6}],
)
def test_what_would_change_the_plan_is_refused(settings: Any, tmp_path: Path) -> None:
    plan = igo.plan("step", gamma=0.7, n=N, epochs=4, batch_size=8)
    with pytest.raises(UserError, match=f"{next(iter(settings))}.* the plan"):
        fit(tmp_path, plan, Numbers(N), **settings)
    with pytest.raises(igo.PlanError, match=r"n=64.*32 samples"):
        fit(tmp_path, plan, Numbers(32))


def in_lightning(job: Job) -> Ran:
    """Train on this rank's shares of batches of 7; the weights at the end."""
    model = network().double()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    plan = igo.plan("constant", n=21, epochs=2, batch_size=7)
    settings = {"devices": 2, "strategy": "ddp"} if ranks() > 1 else {}
    data: Any = torch.linspace(-1000, 3000, 21, dtype=torch.float64).unsqueeze(1)
    fit(job.path, plan, data, model, max_epochs=2, **settings)
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
