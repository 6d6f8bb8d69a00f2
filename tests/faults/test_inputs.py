"""Configurations at the ends of what the documentation allows: each trains an epoch.

That any plan is made is tested in tests/method/test_schedule.py; what is wrong is in
tests/config/test_messages.py.
"""

from pathlib import Path

import pytest
import torch
from conftest import configure
from trained import prepared, train

pytestmark = pytest.mark.faults
RIGHT = (
    "schedule=constant batch_size=128 optimizer=nshb optimizer.momentum=0.99",
    "schedule=linear split=0.3 max_batch_size=null dataset.augment.crop=7 dataset.augment.flip=true"
    " dataset.augment.rotation=180 model.width=1",
    "schedule=step schedule.kappa=0.3 schedule.lam=1.01 seed=4294967295 engine.precision=bf16"
    " optimizer=shb optimizer.momentum=0.01 learning_rate=1e-6",
    "schedule=step schedule.kappa=1 schedule.lam=3 batch_size=1 engine.micro_batch_size=1"
    " noise.batches=6 optimizer=adamw",
    "schedule=diminishing schedule.final_updates=3 epochs=12 batch_size=2 dataset.mean=[1]"
    " dataset.std=[0.01] optimizer.weight_decay=0.1 engine.micro_batch_size=7",
)


@pytest.mark.parametrize("typed", RIGHT)
def test_right_configurations_train_an_epoch(typed: str, tmp_path: Path) -> None:
    own = (f"data_dir={tmp_path}", "dataset.samples=128", "model.width=4", "noise.batches=2")
    training = prepared(configure(*own, *typed.split()))
    before = [p.detach().clone() for p in training.network.parameters()]
    train(training, until=1)
    after = list(training.network.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(bool(parameter.isfinite().all()) for parameter in after)
