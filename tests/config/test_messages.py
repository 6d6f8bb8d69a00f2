"""What a mistake is answered with: the setting that is wrong, and its value.

tests/config/test_cli.py tests that one line of it arrives at a terminal, with the right exit code.
"""

import re

import pytest
from conftest import configure

from igo.config.load import make_plan
from igo.ground.errors import UserError

ALONE = {  # A value, and the settings that do not allow it.
    "-1": "checkpoint_seconds seed schedule.warmup schedule.final_updates schedule.h"
    " dataset.augment.crop dataset.augment.rotation optimizer.weight_decay",
    "0": "p epochs evaluate_every learning_rate batch_size max_batch_size schedule.batch_multiple"
    " schedule.stages dataset.channels dataset.image_size model.width engine.micro_batch_size",
    "1": "dataset.validation dataset.classes dataset.samples noise.batches",
    "8": "max_batch_size dataset.augment.crop",
    "1.5": "p epochs split",
    "1025": "model.width",
    "1438": "batch_size noise.batches",
    "1000001": "epochs schedule.final_updates",
    "2695": "schedule.stages",
    "4294967296": "seed",
    "0.1": "schedule.h",
    "0.9": "optimizer.momentum",
    "0.0003": "dataset.validation",
    "0.9997": "dataset.validation",
    "0.001": "schedule.warmup",
    "30": "schedule.warmup",
    "181": "dataset.augment.rotation",
    "nan": "p schedule.warmup",
    "inf": "learning_rate",
    "null": "p evaluate_every schedule.profile",
    "abc": "split dry_run schedule.lengths schedule.profile dataset.name model.name optimizer.name"
    " control engine.device engine.precision tracking.tool tracking.mode",
    "resnet18": "model.name",
    "[0.1,0.2]": "dataset.mean dataset.std",
    "0.3": "dataset.mean",
    "[nan]": "dataset.mean",
    "[-0.1]": "dataset.mean",
    "[1.1]": "dataset.mean",
    "[0]": "dataset.std",
    "[inf]": "dataset.std",
    "a/b": "tracking.project",
    "''": "tracking.project",
    "{a:1}": "seed",
    "???": "seed",
}

TOGETHER = {  # The words, and the setting that is named. tests/plans has more of plans.
    "p=-1 schedule=polynomial": "p",
    "p=0 schedule=algorithm3": "schedule.epsilon",
    "control=rate schedule.final_updates=1": "control",
    "p=null schedule.epsilon=0.125 schedule.alpha_0=2": "p",
    "schedule.epsilon=0 schedule.alpha_0=1": "schedule.epsilon",
    "schedule.epsilon=0.125 schedule.alpha_0=2 schedule.stages=5": "schedule.stages",
    "batch_size=2 schedule.batch_multiple=8": "batch_size",
    "schedule=exponential schedule.decay=null": "schedule.decay",
    "schedule=exponential schedule.lengths=algorithm3": "schedule.lengths",
    "p=1 split=1 schedule.stages=3 schedule.lengths=algorithm3 schedule.h=0.34": "schedule.h",
    "schedule=diminishing schedule.a=5": "schedule.a",
    "schedule=step schedule.kappa=1.1": "schedule.kappa",
    "schedule.batch_ratio=0.9": "schedule.batch_ratio",
    "schedule=step schedule.lam=0.5": "schedule.lam",
    "schedule=step schedule.kappa=1": "schedule.kappa",
    "schedule=step schedule.kappa=1e-300 schedule.lam=1e300": "schedule.kappa",
    "schedule=step schedule.kappa=0.5 split=1": "split",
    "schedule=step schedule.kappa=0.5 schedule.lam=4 schedule.gamma=0.25": "schedule.gamma",
    "schedule=step schedule.gamma=1e-200": "schedule",
    "+schedule.kappa=0.5": "schedule.kappa",
    "schedule=cosine +schedule.gamma=0.5": "schedule.gamma",
    "schedule=graduated schedule.rate=cosine": "schedule.rate",
    "schedule=cosine schedule.rate=cosine split=0.5": "split",
    "batch_size={0:16,0.5:0.5}": "batch_size",
    "batch_size={0.5:32}": "batch_size",
    "batch_size={0:16,0.5:36} schedule.batch_multiple=8": "batch_size",
    "batch_size={0:16,0.5:32} schedule=method3": "batch_size",
    "schedule=step schedule.kappa=0.5 batch_size={0:16,0.5:32}": "batch_size",
    "schedule.sizes={0:16}": "schedule.sizes",
    "schedule.clock=updates": "schedule.clock",
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


EACH = [(f"{name}={value}", name) for value, names in ALONE.items() for name in names.split()]


@pytest.mark.parametrize(("words", "setting"), [*EACH, *TOGETHER.items()])
def test_a_mistake_is_answered_with_its_setting(words: str, setting: str) -> None:
    with pytest.raises(UserError) as caught:
        make_plan(configure(*words.split()))
    message = str(caught.value)
    assert re.match(rf"{re.escape(setting)}(=|: )", message)
    assert not message.endswith("None")  # It says what is allowed.


ALLOWED = [  # The ends of ranges are in them.
    "p=1 split=0 epochs=1 seed=4294967295",
    "p=1e-9 split=1 seed=0 batch_size=1437 noise.batches=2",
    "batch_size=1 max_batch_size=1 noise.batches=1437",
    "schedule=step schedule.kappa=1 schedule.lam=2",
    "schedule=step schedule.kappa=0.5 schedule.lam=1",
    "schedule.stages=30 dataset.augment.crop=7 dataset.augment.rotation=180 model.width=1024",
    "dataset.mean=[0] dataset.std=[1e6] engine.micro_batch_size=1",
    "dataset.mean=[1] dataset.std=[1e-6] schedule.final_updates=0",
    "optimizer=shb optimizer.momentum=0 optimizer.weight_decay=0 schedule.batch_multiple=16",
    "dataset=imagenet model=resnet34 dataset.workers=0 batch_size=32",
]


def test_the_ends_of_ranges_are_allowed() -> None:
    for words in ALLOWED:
        make_plan(configure(*words.split()))
