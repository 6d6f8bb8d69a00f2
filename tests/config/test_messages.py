"""What a mistake is answered with: the setting, its value, and what is wrong with it.

tests/config/test_cli.py tests that one line of it arrives at a terminal, with the right exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from conftest import composing

from igo.config.schema import SETTINGS, Config
from igo.ground.errors import UserError
from igo.method.profiles import PROFILES, parameters


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[..., Config]]:
    with composing() as configure:
        yield configure


MESSAGES = {  # what is typed: how the answer begins, without "is not allowed"
    "p=1.5": "p=1.5: graduated needs p in (0, 1], the range of the",
    "p=0": "p=0.0: it must be above 0",
    "p=-1 schedule=polynomial": "p=-1.0: it must be above 0",
    "p=nan": "p=nan: it must be above 0",
    "split=1.2": "split=1.2: it must be in [0, 1]: 1 = all of the decay in",
    "split=-0.1": "split=-0.1: it must be in [0, 1]: 1 = all of the decay in",
    "split=abc": "split=abc: it must be a number",
    "epochs=0": "epochs=0: it must be in [1, 1,000,000]",
    "epochs=1000001": "epochs=1000001: it must be in [1, 1,000,000]",
    "epochs=2.5": "epochs=2.5: it must be a whole number",
    "epochs=true": "epochs=True: it must be a whole number",
    "evaluate_every=0": "evaluate_every=0: it must be auto, or 1 or more",
    "evaluate_every=2.5": "evaluate_every=2.5: it must be a whole number or auto",
    "evaluate_every=true": "evaluate_every=True: it must be a whole number or auto",
    "evaluate_every=null": "evaluate_every=null: it must be a whole number or auto",
    "seed=-1": "seed=-1: it must be in [0, 2^32)",
    "seed=4294967296": "seed=4294967296: it must be in [0, 2^32)",
    "learning_rate=0": "learning_rate=0.0: it must be above 0",
    "learning_rate=nan": "learning_rate=nan: it must be above 0",
    "learning_rate=inf": "learning_rate=inf: it must be above 0",
    "batch_size=0": "batch_size=0: it must be 1 or more",
    "batch_size=1438": "batch_size=1438: digits has 1437 training samples",
    "max_batch_size=0": "max_batch_size=0: it must be 1 or more",
    "max_batch_size=8": "max_batch_size=8: it must be at least batch_size=16",
    "schedule.epsilon=0 schedule.alpha_0=1": "schedule.epsilon=0.0: it must be above 0",
    "schedule.epsilon=1 schedule.alpha_0=-1": "schedule.alpha_0=-1.0: it must be above 0",
    "schedule.batch_multiple=0": "schedule.batch_multiple=0: it must be 1 or more",
    "schedule.batch_multiple=12": "batch_size=16: it must be a multiple of",
    "batch_size=2 schedule.batch_multiple=8": "batch_size=2: it must be a multiple of",
    "schedule.stages=0": "schedule.stages=0: it must be 1 or more",
    "schedule.stages=31": "schedule.stages=31: each stage needs an epoch of its own",
    "schedule.final_updates=-1": "schedule.final_updates=-1: it must be in [0, 1,000,000]",
    "schedule.final_updates=1000001": "schedule.final_updates=1000001: it must be in [0",
    "schedule.p=2": "schedule.p=2.0: graduated needs p in (0, 1], the range of",
    "schedule.p=0": "schedule.p=0.0: graduated needs p in (0, 1], the range of",
    "schedule.p=null": "schedule.p=null: the profile 'graduated' needs it",
    "schedule=exponential schedule.decay=null": "schedule.decay=null: the profile 'exponential'",
    "schedule=exponential schedule.decay=1": "schedule.decay=1.0: the decay per epoch must be in",
    "schedule=exponential schedule.decay=0": "schedule.decay=0.0: the decay per epoch must be in",
    "schedule=cosine_power schedule.power=null": "schedule.power=null: the profile 'cosine_power'",
    "schedule=cosine_power schedule.power=1": "schedule.power=1.0: it must be above 1 (towards 1",
    "schedule=diminishing schedule.form=inverse_cube": "schedule.form=inverse_cube: it must be",
    "schedule=polynomial schedule.p=null": "schedule.p=null: the profile 'polynomial' needs it",
    "schedule.noise_exponent=0": "schedule.noise_exponent=0.0: ρ of δ = η C b^(-ρ) must be in",
    "schedule.noise_exponent=1 schedule.feedback=measured": (
        "schedule.noise_exponent=1.0: schedule.feedback follows the"
    ),
    "schedule=method3 schedule.noise_exponent=1": "schedule.noise_exponent=1.0: schedule.kappa=1",
    "schedule=method4 schedule.noise_exponent=measured": "schedule.noise_exponent=measured: sch",
    "schedule.lengths=even": "schedule.lengths=even: it must be one of equal, algorithm3.",
    "schedule.h=-1": "schedule.h=-1.0: it must be 0 or more",
    "schedule.h=0.1": "schedule.h=0.1: only schedule.lengths=algorithm3 has it",
    "schedule=exponential schedule.lengths=algorithm3": "schedule.lengths=algorithm3: exponential",
    "schedule=diminishing schedule.form=inverse_time schedule.a=0": "schedule.a=0.0: it must be",
    "schedule=diminishing schedule.a=5": "schedule.a=5.0: only schedule.form=inverse_time has it",
    "schedule=step schedule.gamma=1": "schedule.gamma=1.0: a constant decay rate γ must be in (0",
    "schedule=step schedule.gamma=0": "schedule.gamma=0.0: a constant decay rate γ must be in (0",
    "schedule=step schedule.kappa=1.1": "schedule.kappa=1.1: κ = η_{m+1}/η_m must be in (0, 1]",
    "schedule=step schedule.kappa=0": "schedule.kappa=0.0: κ = η_{m+1}/η_m must be in (0, 1]",
    "schedule=step schedule.lam=0.5": "schedule.lam=0.5: λ = b_{m+1}/b_m must be 1 or more",
    "schedule=step schedule.kappa=1 schedule.lam=1": "schedule.kappa=1.0: schedule.kappa=1 and",
    "schedule=step schedule.kappa=1": "schedule.kappa=1.0: schedule.kappa=1 and schedule.lam=1",
    "schedule=step schedule.kappa=1e-300 schedule.lam=1e300": (
        "schedule.kappa=1e-300: schedule.kappa=1e-300 and"
    ),
    "schedule=method3 split=0.5": "split=0.5: the schedule has its own decay and split; leave",
    "schedule=method2 schedule.gamma=0.4": "schedule.gamma=0.4: the schedule has its own decay",
    "schedule=step schedule.kappa=0.5 split=0.3": "split=0.3: schedule.kappa=0.5 and",
    "schedule=step schedule.kappa=0.5 schedule.gamma=0.4": "schedule.gamma=0.4",
    "schedule=step schedule.kappa=0.5 schedule.lam=4 schedule.gamma=0.4": (
        "schedule.gamma=0.4: schedule.kappa=0.5 and schedule.lam=4"
    ),
    "schedule=step schedule.gamma=1e-200": "schedule=step: its noise level is δ_3 = 0 δ_1 in",
    "schedule=constant split=0.5": "split=0.5: constant noise has no decay to split; leave it",
    "schedule=cosine p=0.3": "p=0.3: it has no effect with schedule=cosine; leave it",
    "schedule=linear p=0.7": "p=0.7: it has no effect where schedule.p is 1; leave it out, or",
    "schedule=method3 p=0.5": "p=0.5: it has no effect with Method 3; leave it out, or",
    "schedule.feedback_limit=3": "schedule.feedback_limit=3.0: only",
    "schedule.feedback=measured schedule.feedback_limit=1": (
        "schedule.feedback_limit=1.0: it must be above 1"
    ),
    "schedule.feedback=measure": "schedule.feedback=measure: it must be one of none",
    "schedule.feedback=measured optimizer=shb": "schedule.feedback=measured: it follows the noise",
    "schedule.profile=gradated": "schedule.profile=gradated: it must be one of constant",
    "schedule.profile=null": "schedule.profile=null: it must be one of constant",
    "schedule=wsd schedule.share=0": "schedule.share=0.0: the share of the decay must be in (0, 1]",
    "schedule=wsd schedule.shape=lin": "schedule.shape=lin: it must be one of linear, cosine",
    "dataset.name=cifar11": "dataset.name=cifar11: it must be one of digits",
    "dataset.validation=1": "dataset.validation=1.0: it is a share and must be in [0, 1)",
    "dataset.classes=1": "dataset.classes=1: it must be 2 or more",
    "dataset.channels=0": "dataset.channels=0: it must be 1 or more",
    "dataset.image_size=0": "dataset.image_size=0: it must be 1 or more",
    "dataset.test_samples=0": "dataset.test_samples=0: it must be 1 or more",
    "dataset.samples=1": "dataset.samples=1: it must be 2 or more",
    "dataset.augment.crop=8": "dataset.augment.crop=8: it must be below the image size, 8",
    "dataset.augment.crop=-1": "dataset.augment.crop=-1: it must be 0 or more",
    "dataset.augment.rotation=181": "dataset.augment.rotation=181.0: it must be in [0, 180]",
    "dataset.augment.rotation=-1": "dataset.augment.rotation=-1.0: it must be in [0, 180]",
    "dataset=imagenet model=resnet18 dataset.augment.crop=4": "dataset.augment.crop=4: imagenet",
    "dataset=imagenet model=resnet18 dataset.augment.rotation=4": (
        "dataset.augment.rotation=4.0: imagenet has random resized"
    ),
    "dataset.mean=[0.1,0.2]": "dataset.mean=[0.1, 0.2]: dataset.channels=1; it must have a",
    "dataset.std=[0.1,0.2]": "dataset.std=[0.1, 0.2]: dataset.channels=1; it must have a",
    "dataset.mean=[]": "dataset.mean=[]: dataset.channels=1; it must have a number",
    "dataset.mean=0.3": "dataset.mean=0.3: it must be a list, such as [16] or [16,64]",
    "dataset.mean=[nan]": "dataset.mean=[nan]: each must be in [0, 1], as pixels are",
    "dataset.mean=[-0.1]": "dataset.mean=[-0.1]: each must be in [0, 1], as pixels are",
    "dataset.mean=[1.1]": "dataset.mean=[1.1]: each must be in [0, 1], as pixels are",
    "dataset.mean=[a]": "dataset.mean[0]=a: it must be a number",
    "dataset.std=[0]": "dataset.std=[0.0]: each must be in [0.000001, 1,000,000]",
    "dataset.std=[inf]": "dataset.std=[inf]: each must be in [0.000001, 1,000,000]",
    "dataset.std=[nan]": "dataset.std=[nan]: each must be in [0.000001, 1,000,000]",
    "model.width=0": "model.width=0: it must be in [1, 1,024]",
    "model.width=1025": "model.width=1025: it must be in [1, 1,024]",
    "model=resnet34": "model.stem=imagenet: it divides an image's side by 32, and",
    "model=resnet18 model.stem=imagenett": "model.stem=imagenett: it must be one of cifar",
    "model.name=resnet18": "model.name=resnet18: its settings come with it; choose it",
    "model.name=resnet50": "model.name=resnet50: it must be one of resnet18, resnet34",
    "model.name=wide_resnet28_10": "model.name=wide_resnet28_10: its settings come with it",
    "optimizer.name=adam": "optimizer.name=adam: it must be one of sgd, shb, nshb",
    "optimizer.name=adamw": "optimizer.name=adamw: its settings come with it; choose it",
    "optimizer=adamw optimizer.beta2=1": "optimizer.beta2=1.0: β must be in [0, 1)",
    "optimizer=adamw optimizer.eps=0": "optimizer.eps=0.0: it must be above 0",
    "+optimizer.beta1=0.5": "optimizer.beta1=0.5: optimizer=sgd has no beta1; use",
    "optimizer=adamw schedule.feedback=measured": "schedule.feedback=measured: it follows the",
    "optimizer=timm optimizer.name=sgd schedule.feedback=measured": (
        "schedule.feedback=measured: it follows the noise of"
    ),
    "optimizer=adamw +optimizer.decay_momentum=true": "optimizer.decay_momentum=True: it needs",
    "optimizer=timm +optimizer.constant_half_life=true": (
        "optimizer.constant_half_life=True: only optimizer=adamw has"
    ),
    "optimizer.momentum=0.9": "optimizer.momentum=0.9: optimizer=sgd has no momentum; use",
    "optimizer=shb optimizer.momentum=1": "optimizer.momentum=1.0: β must be in [0, 1)",
    "optimizer=shb optimizer.momentum=-0.1": "optimizer.momentum=-0.1: β must be in [0, 1)",
    "optimizer.weight_decay=-1": "optimizer.weight_decay=-1.0: it must be 0 or more",
    "optimizer=shb optimizer.momentum=0 optimizer.decay_momentum=true": (
        "optimizer.decay_momentum=True: it needs optimizer=shb or"
    ),
    "optimizer=shb optimizer.decay_momentum=true split=1": "split=1.0",
    "optimizer=nshb optimizer.decay_momentum=true max_batch_size=64": (
        "max_batch_size=64: optimizer.decay_momentum=true leaves the"
    ),
    "optimizer=shb optimizer.decay_momentum=true schedule=step schedule.kappa=0.5": (
        "schedule.kappa=0.5: optimizer.decay_momentum=true leaves"
    ),
    "optimizer=shb optimizer.decay_momentum=true schedule=step schedule.lam=2": (
        "schedule.lam=2.0: optimizer.decay_momentum=true leaves the"
    ),
    "noise.batches=1": "noise.batches=1: a variance needs 2 mini-batches or more",
    "noise.batches=1438": "noise.batches=1438: it must be at most the 1437 training",
    "noise.batch_size=0": "noise.batch_size=0: it must be 1 or more",
    "noise.online=1.1": "noise.online=1.1: it is a share of the samples and must be",
    "noise.online=-0.1": "noise.online=-0.1: it is a share of the samples and must be",
    "engine.device=gpu": "engine.device=gpu: it must be one of auto, cpu, cuda. Did",
    "engine.precision=fp8": "engine.precision=fp8: it must be one of auto, fp32, bf16",
    "engine.batchnorm=global": "engine.batchnorm=global: it must be one of synced, local.",
    "engine.background=maybe": "engine.background=maybe: it must be one of auto, true",
    "engine.micro_batch_size=0": "engine.micro_batch_size=0: it must be 1 or more",
    "engine.micro_batch_size=64 engine.memory=4": "engine.memory=4.0: it chooses engine.micro",
    "engine.memory=0": "engine.memory=0.0: it must be above 0",
    "engine.threads=0": "engine.threads=0: it must be auto, or in [1, 1,024]",
    "engine.threads=1025": "engine.threads=1025: it must be auto, or in [1, 1,024]",
    "tracking.tool=mlflow": "tracking.tool=mlflow: it must be one of wandb, tensorboard",
    "tracking.mode=onlin": "tracking.mode=onlin: it must be one of offline, online",
    "tracking.tags=x": "tracking.tags=x: it must be a list, such as [16] or [16,64]",
    "tracking.project=a/b": "tracking.project=a/b: W&B's projects have names of 1 to 128",
    "tracking.project=''": "tracking.project=: W&B's projects have names of 1 to 128",
    "tracking.tags=[a,'']": "tracking.tags=: W&B's tags have 1 to 64 characters",
    "p=${nope}": "p: Interpolation key 'nope' not found",
    "dry_run=maybe": "dry_run=maybe: it must be true or false",
    "data_dir=[a]": "data_dir=['a']: it must be text",
    "runs_dir=null": "runs_dir=null: it needs a value",
    "model.name=null": "model.name=null: it needs a value",
    "engine.device=null": "engine.device=null: it must be one of auto, cpu, cuda",
    "~dataset": "dataset.name=null: it must be one of digits, fashion_mnist",
    "seed={a:1}": "seed={'a': 1}: it must be a whole number",
    "seed=???": "seed=???: it needs a value",
    "p=${p}": "p: Recursive interpolation detected",
    "seed=9223372036854775808": "seed=a number of 64 bits: it is too large",
    "dataset.mean=[-9223372036854775808]": "dataset.mean[0]=a number of 64 bits: it is too large",
    "+optimizer.nesterov=true": "there is no setting 'optimizer.nesterov'. Did you mean",
    "+foo=1": "there is no setting 'foo'.",
    "+lr=0.1": "there is no setting 'lr'. Did you mean 'learning_rate'?",
    "+optimizer.lr=0.1": "there is no setting 'optimizer.lr'. Did you mean",
    "dataset=imagenet model=resnet18 dataset.workers=-1": "dataset.workers=-1: it must be in [0",
    "dataset=imagenet model=resnet18 dataset.workers=1025": "dataset.workers=1025: it must be in",
    "learning_rate=1e-300 schedule=step schedule.gamma=1e-20 split=1": (
        "learning_rate=1e-300: it underflows to η_3 = 0 in stage 3"
    ),
}


@pytest.mark.parametrize("typed", MESSAGES)
def test_a_mistake_is_answered_with(typed: str, make: Callable[..., Config]) -> None:
    with pytest.raises(UserError) as caught:
        make(*typed.split())
    message = str(caught.value).replace(" is not allowed", "", 1)
    assert message.startswith(f"the run {typed}: {MESSAGES[typed]}")


def test_every_rule_and_choice_has_a_message_above() -> None:
    answered = {message.split("=")[0] for message in MESSAGES.values()}
    of_profiles = {f"schedule.{parameter}" for name in PROFILES for parameter in parameters(name)}
    checked = {
        name for name, setting in SETTINGS.items() if setting.notes.rule or setting.notes.choices
    }
    assert {*checked, *of_profiles} - answered == set()


ALLOWED = [  # the ends of ranges, which are in them
    "p=1 split=0 epochs=1 seed=4294967295",
    "p=1e-9 split=1 seed=0 batch_size=1437 noise.batches=2 noise.online=0",
    "batch_size=1 max_batch_size=1 noise.batches=1437 noise.batch_size=1 noise.online=1",
    "schedule=step schedule.kappa=1 schedule.lam=2",
    "schedule=step schedule.kappa=0.5 schedule.lam=4 schedule.gamma=0.25 split=0.5",
    "schedule=step schedule.kappa=0.5 schedule.lam=1",
    "schedule.stages=30 dataset.augment.crop=7 dataset.augment.rotation=180 model.width=1024",
    "dataset.mean=[0] dataset.std=[1e6] engine.threads=1024 engine.micro_batch_size=1",
    "dataset.mean=[1] dataset.std=[1e-6] engine.threads=1 schedule.final_updates=0",
    "optimizer=shb optimizer.momentum=0 optimizer.weight_decay=0 schedule.batch_multiple=16",
    "dataset=imagenet model=resnet34 dataset.workers=0 batch_size=32",
    "schedule.feedback=measured schedule.feedback_limit=1.001",
]


@pytest.mark.parametrize("typed", ALLOWED)
def test_the_ends_of_ranges_are_allowed(typed: str, make: Callable[..., Config]) -> None:
    make(*typed.split())
