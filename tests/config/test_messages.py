"""What a mistake is answered with: the setting that is wrong, and its value.

tests/config/test_cli.py tests that one line of it arrives at a terminal, with the right exit code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from conftest import composing

from igo.config.schema import Config
from igo.ground.errors import UserError


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[..., Config]]:
    with composing() as configure:
        yield configure


ALONE = {  # a setting, and values just outside of what it may be
    "p": "1.5 0 nan null",
    "split": "1.2 abc",
    "epochs": "0 1000001 2.5",
    "evaluate_every": "0 null",
    "checkpoint_seconds": "-1",
    "seed": "-1 4294967296 {a:1} ???",
    "learning_rate": "0 inf",
    "batch_size": "0 1438",
    "max_batch_size": "0 8",
    "schedule.batch_multiple": "0",
    "schedule.stages": "0 2695",
    "schedule.warmup": "-1 nan 0.001 30",
    "schedule.final_updates": "-1 1000001",
    "schedule.lengths": "even",
    "schedule.h": "-1 0.1",
    "schedule.profile": "gradated null",
    "dataset.name": "cifar11",
    "dataset.validation": "1 -0.1 0.0003 0.9997",
    "dataset.classes": "1",
    "dataset.channels": "0",
    "dataset.image_size": "0",
    "dataset.samples": "1",
    "dataset.augment.crop": "8 -1",
    "dataset.augment.rotation": "181 -1",
    "dataset.mean": "[0.1,0.2] 0.3 [nan] [-0.1] [1.1]",
    "dataset.std": "[0.1,0.2] [0] [inf]",
    "model.width": "0 1025",
    "model.name": "resnet18 resnet50",
    "optimizer.name": "adam",
    "optimizer.momentum": "0.9",
    "optimizer.weight_decay": "-1",
    "noise.batches": "1 1438",
    "engine.device": "gpu",
    "engine.precision": "fp8",
    "engine.micro_batch_size": "0",
    "engine.threads": "0 1025 1.5",
    "tracking.tool": "mlflow",
    "tracking.mode": "onlin",
    "tracking.project": "a/b ''",
    "dry_run": "maybe",
}

TOGETHER = {  # what is typed: the setting that is named
    "p=-1 schedule=polynomial": "p",
    "schedule=linear p=0.7": "p",
    "schedule=method3 p=0.5": "p",
    "schedule.epsilon=0 schedule.alpha_0=1": "schedule.epsilon",
    "schedule.epsilon=1 schedule.alpha_0=-1": "schedule.alpha_0",
    "schedule.epsilon=0.00001 schedule.alpha_0=2": "schedule.epsilon",
    "schedule.epsilon=0.125 schedule.alpha_0=2 schedule.stages=5": "schedule.stages",
    "batch_size=2 schedule.batch_multiple=8": "batch_size",
    "schedule=exponential schedule.decay=null": "schedule.decay",
    "schedule=exponential schedule.decay=1": "schedule.decay",
    "schedule=exponential schedule.lengths=algorithm3": "schedule.lengths",
    "schedule=cosine_power schedule.power=1": "schedule.power",
    "schedule=diminishing schedule.form=inverse_cube": "schedule.form",
    "schedule=diminishing schedule.form=inverse_time schedule.a=0": "schedule.a",
    "schedule=diminishing schedule.a=5": "schedule.a",
    "schedule=wsd schedule.share=0": "schedule.share",
    "schedule=wsd schedule.shape=lin": "schedule.shape",
    "schedule=step schedule.gamma=1": "schedule.gamma",
    "schedule=step schedule.gamma=0": "schedule.gamma",
    "schedule=step schedule.kappa=1.1": "schedule.kappa",
    "schedule=step schedule.lam=0.5": "schedule.lam",
    "schedule=step schedule.kappa=1": "schedule.kappa",
    "schedule=step schedule.kappa=1e-300 schedule.lam=1e300": "schedule.kappa",
    "schedule=step schedule.kappa=0.5 split=0.3": "split",
    "schedule=step schedule.kappa=0.5 schedule.lam=4 schedule.gamma=0.4": "schedule.gamma",
    "schedule=step schedule.gamma=1e-200": "schedule",
    "learning_rate=1e-300 schedule=step schedule.gamma=1e-20 split=1": "learning_rate",
    "schedule=method3 split=0.5": "split",
    "schedule=method2 schedule.gamma=0.4": "schedule.gamma",
    "schedule=constant split=0.5": "split",
    "~dataset": "dataset.name",
    "dataset=imagenet model=resnet18 dataset.augment.crop=4": "dataset.augment.crop",
    "dataset=imagenet model=resnet18 dataset.workers=-1": "dataset.workers",
    "model=resnet34": "model.stem",
    "model=resnet18 model.stem=imagenett": "model.stem",
    "optimizer=adamw optimizer.beta2=1": "optimizer.beta2",
    "optimizer=adamw optimizer.eps=0": "optimizer.eps",
    "optimizer=shb optimizer.momentum=1": "optimizer.momentum",
    "+optimizer.beta1=0.5": "optimizer.beta1",
}


EACH = [(f"{name}={value}", name) for name, values in ALONE.items() for value in values.split()]


@pytest.mark.parametrize(("typed", "setting"), [*EACH, *TOGETHER.items()])
def test_a_mistake_is_answered_with_its_setting(
    typed: str, setting: str, make: Callable[..., Config]
) -> None:
    with pytest.raises(UserError) as caught:
        make(*typed.split())
    said = str(caught.value).removeprefix(f"the run {typed}: ")
    assert re.match(rf"{re.escape(setting)}(=|: )", said)
    assert not said.endswith("None")  # it says what is allowed


ALLOWED = [  # the ends of ranges, which are in them
    "p=1 split=0 epochs=1 seed=4294967295",
    "p=1e-9 split=1 seed=0 batch_size=1437 noise.batches=2",
    "batch_size=1 max_batch_size=1 noise.batches=1437",
    "schedule=step schedule.kappa=1 schedule.lam=2",
    "schedule=step schedule.kappa=0.5 schedule.lam=4 schedule.gamma=0.25 split=0.5",
    "schedule=step schedule.kappa=0.5 schedule.lam=1",
    "schedule.stages=30 dataset.augment.crop=7 dataset.augment.rotation=180 model.width=1024",
    "dataset.mean=[0] dataset.std=[1e6] engine.threads=1024 engine.micro_batch_size=1",
    "dataset.mean=[1] dataset.std=[1e-6] engine.threads=1 schedule.final_updates=0",
    "optimizer=shb optimizer.momentum=0 optimizer.weight_decay=0 schedule.batch_multiple=16",
    "dataset=imagenet model=resnet34 dataset.workers=0 batch_size=32",
]


@pytest.mark.parametrize("typed", ALLOWED)
def test_the_ends_of_ranges_are_allowed(typed: str, make: Callable[..., Config]) -> None:
    make(*typed.split())
