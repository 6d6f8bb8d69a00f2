"""Words from other tools: each is answered with igo's word, in a command and in a call."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ROOT, configure
from hydra.errors import HydraException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import igo
from igo.config.cli import _explained
from igo.ground.errors import UserError

SETTINGS = {  # igo's word, and what people type for it.
    "learning_rate": "lr optimizer.lr optimizer.learning_rate model.learning_rate",
    "batch_size": "bs batch train_batch_size per_device_train_batch_size dataset.batch_size",
    "max_batch_size": "b_max max_bs",
    "epochs": "epoch n_epochs max_epochs trainer.max_epochs total_steps max_steps T_max",
    "seed": "random_seed manual_seed",
    "data_dir": "data_root data_path",
    "runs_dir": "output_dir save_dir logdir",
    "dataset.root": "root dataset.path",
    "dataset.workers": "workers num_workers",
    "dataset.validation": "val_split",
    "model": "arch net",
    "optimizer": "opt optim",
    "optimizer.weight_decay": "wd weight_decay",
    "optimizer.momentum": "momentum",
    "schedule": "scheduler lr_scheduler",
    "schedule.floor": "min_lr eta_min schedule.min_lr",
    "schedule.warmup": "warmup warmup_steps warmup_epochs schedule.warmup_ratio",
    "schedule.share": "schedule.decay_share",
    "engine.device": "gpu device trainer.devices",
    "engine.precision": "amp dtype precision",
    "engine.micro_batch_size": "gradient_accumulation_steps accumulate_grad_batches",
    "tracking": "wandb",
    "tracking.project": "wandb_project",
    "tracking.name": "run_name",
}
OPTIONS = {
    "engine=cuda": "Did you mean 'gpu'",
    "optimizer=adam": "Did you mean 'adamw'",
    "optimizer=lion": r"optimizer\._target_=timm\.optim\.Lion",
    "schedule=gradated": "Did you mean 'graduated'",
    "schedule=cosine_annealing": "Did you mean 'cosine'",
    "schedule=poly": "Did you mean 'polynomial'",
    "dataset=mnist": "Did you mean 'fashion_mnist'",
    "tracking=tb": "Did you mean 'tensorboard'",
    "model=resnet50": "model=timm model.name=resnet50",
    "dataset.augment=true": "type dataset.augment.crop=VALUE or dataset.augment.flip=VALUE or",
    "schedule=wsd schedule.decay=0.2": "schedule=exponential; that of wsd is schedule.share",
    "schedule.kappa=0.5": "belongs to .*schedule=step",
    "resume=true": "the same command continues an unfinished run",
    "overwrite=true": r"'overwrite'\. \(see --help\)",  # fresh=true would delete the run.
    "frsh=true": r"'frsh'\. \(see --help\)",
}
COMMANDS = {
    f"{word}=1": f"there is no setting '{word}'. Did you mean '{name}'"
    for name, words in SETTINGS.items()
    for word in words.split()
} | OPTIONS


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_is_answered_with_the_word_of_igo(words: str) -> None:
    with pytest.raises((HydraException, UserError)) as caught:
        configure(*words.split())
    error = caught.value
    if isinstance(error, HydraException):
        error = _explained(error, ROOT / "conf" / "config.yaml")
    assert re.search(COMMANDS[words], str(error))


DATA = TensorDataset(torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64))
MODEL = nn.Linear(3, 2)
PLAN = igo.plan("cosine", n=8, epochs=2, batch_size=4, max_batch_size=8)


def planned(profile: str = "cosine", **words: Any) -> Callable[[], object]:
    return lambda: igo.plan(profile, **{"n": 8, "epochs": 2, "batch_size": 4, **words})


CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "lr": (planned(lr=0.1), "Did you mean 'learning_rate'"),
    "bs": (planned(bs=8), "Did you mean 'batch_size'"),
    "b_max": (planned(b_max=8), "Did you mean 'max_batch_size'"),
    "min_lr": (planned(min_lr=0.1), "Did you mean 'floor'"),
    "num_epochs": (planned(num_epochs=3), "Did you mean 'epochs'"),
    "total_steps": (planned(total_steps=9), "Did you mean 'samples'"),
    "T_max": (planned(T_max=9), "Did you mean 'samples'"),
    "steps": (planned(steps=9), "Did you mean 'samples'"),
    "updates": (planned(updates=9), "Did you mean 'samples'"),
    "warmup_steps": (planned(warmup_steps=5), "Did you mean 'warmup_samples'"),
    "step by updates": (
        lambda: igo.plan(rate="step", clock="updates", gamma=0.5, n=8, epochs=2, batch_size=4),
        "clock=updates is not allowed: step counts stages",
    ),
    "a plan as profile": (planned(PLAN), "give it as rate"),  # type: ignore[arg-type]
    "a plan with a floor": (
        lambda: igo.plan(rate=PLAN, floor=0.1, n=8, epochs=2, batch_size=4),
        "floor=0.1 is not allowed: a plan that is given as rate takes no more",
    ),
    "a list of rates": (
        lambda: igo.plan(rate=[1, 0.5], n=8, epochs=2, batch_size=4),  # type: ignore[arg-type]
        "rate=[1, 0.5] is not allowed: it must be one of",
    ),
    "a constant plan reversed": (
        lambda: igo.plan("constant", n=8, epochs=2, batch_size=4).control("reversed"),
        "its η and b are constant, so it is its own",
    ),
    "a list of batch sizes": (planned(batch_size=[2, 4]), "a table begins at 0, and goes on by"),
    "decay of wsd": (planned("wsd", decay=0.2), "Did you mean 'share'"),
    "a loader for a sampler": (
        lambda: igo.BatchSampler(PLAN, DataLoader(DATA)),  # type: ignore[arg-type]
        "data=DataLoader is not allowed: give the data set of the loader",
    ),
    "a loader for a schedule": (
        lambda: igo.Schedule(torch.optim.SGD(MODEL.parameters()), DataLoader(DATA)),  # type: ignore[arg-type]
        "takes one of torch.optim or several, and an igo.BatchSampler or igo.Counter, not SGD, Da",
    ),
    "a data set for a loader": (
        lambda: igo.measure_noise(MODEL, nn.functional.cross_entropy, DATA, n=8),  # type: ignore[arg-type]
        "a data set has no batches: give DataLoader(data, batch_size=32, shuffle=True)",
    ),
    "a function for a loader": (
        lambda: igo.measure_noise(MODEL, nn.functional.cross_entropy, lambda: DATA.tensors, n=8),  # type: ignore[arg-type]
        "loader is a function: give iter(function, None), which calls it for each batch",
    ),
    "a meter without parts": (
        lambda: igo.NoiseMeter(MODEL, half_life=8).update(),
        "no part of this batch is known: call part(samples) after each backward",
    ),
}


@pytest.mark.filterwarnings("ignore:M = 1")
@pytest.mark.parametrize("habit", CALLS)
def test_a_call_is_answered_with_the_word_of_igo(habit: str) -> None:
    call, message = CALLS[habit]
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call()
