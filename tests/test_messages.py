"""What a mistake is answered with, word for word: a message is what most people see of a rule.

That one line of it arrives at a terminal, with the right exit code, is for tests/test_cli.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from conftest import composing

from igo.config.rules import CHOICES, RULES
from igo.config.schema import Config
from igo.errors import UserError


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[..., Config]]:
    with composing() as found:
        yield found


MESSAGES = {  # what is typed: the answer
    "p=1.5": (
        "p=1.5 is not allowed: schedule=graduated needs p in (0, 1], the range of the "
        "optimal decay; use schedule=polynomial for any p > 0"
    ),
    "p=0": "p=0.0 is not allowed: it must be above 0",
    "p=-1 schedule=polynomial": "p=-1.0 is not allowed: it must be above 0",
    "p=nan": "p=nan is not allowed: it must be above 0",
    "split=1.2": (
        "split=1.2 is not allowed: it must be in [0, 1]: 1 = all of the decay in the "
        "learning rate, 0 = all in the batch"
    ),
    "split=-0.1": (
        "split=-0.1 is not allowed: it must be in [0, 1]: 1 = all of the decay in the "
        "learning rate, 0 = all in the batch"
    ),
    "split=abc": "split=abc is not allowed: it must be a number",
    "epochs=0": "epochs=0 is not allowed: it must be in [1, 1,000,000]",
    "epochs=1000001": "epochs=1000001 is not allowed: it must be in [1, 1,000,000]",
    "epochs=2.5": "epochs=2.5 is not allowed: it must be a whole number",
    "epochs=true": "epochs=True is not allowed: it must be a whole number",
    "evaluate_every=0": "evaluate_every=0 is not allowed: it must be 1 or more",
    "seed=-1": "seed=-1 is not allowed: it must be in [0, 2^32)",
    "seed=4294967296": "seed=4294967296 is not allowed: it must be in [0, 2^32)",
    "learning_rate=0": "learning_rate=0.0 is not allowed: it must be above 0",
    "learning_rate=nan": "learning_rate=nan is not allowed: it must be above 0",
    "learning_rate=inf": "learning_rate=inf is not allowed: it must be above 0",
    "batch_size=0": "batch_size=0 is not allowed: it must be 1 or more",
    "batch_size=1438": "batch_size=1438 is not allowed: digits has 1437 training samples",
    "max_batch_size=0": "max_batch_size=0 is not allowed: it must be 1 or more",
    "max_batch_size=8": "max_batch_size=8 is not allowed: it must be at least batch_size=16",
    "schedule.epsilon=0 schedule.alpha_0=1": (
        "schedule.epsilon=0.0 is not allowed: it must be above 0"
    ),
    "schedule.epsilon=1 schedule.alpha_0=-1": (
        "schedule.alpha_0=-1.0 is not allowed: it must be above 0"
    ),
    "schedule.batch_multiple=0": "schedule.batch_multiple=0 is not allowed: it must be 1 or more",
    "schedule.batch_multiple=12": (
        "batch_size=16 is not allowed: it must be a multiple of schedule.batch_multiple=12, e.g. 12"
    ),
    "batch_size=30 schedule.batch_multiple=20": (
        "batch_size=30 is not allowed: it must be a multiple of schedule.batch_multiple=20, e.g. 40"
    ),
    "batch_size=2 schedule.batch_multiple=8": (
        "batch_size=2 is not allowed: it must be a multiple of schedule.batch_multiple=8, e.g. 8"
    ),
    "schedule.stages=0": "schedule.stages=0 is not allowed: it must be 1 or more",
    "schedule.stages=31": (
        "schedule.stages=31 is not allowed: each stage needs an epoch of its own, and "
        "epochs=30; it must be at most that"
    ),
    "schedule.final_updates=-1": (
        "schedule.final_updates=-1 is not allowed: it must be in [0, 1,000,000]"
    ),
    "schedule.final_updates=1000001": (
        "schedule.final_updates=1000001 is not allowed: it must be in [0, 1,000,000]"
    ),
    "schedule.p=2": (
        "p=2.0 is not allowed: schedule=graduated needs p in (0, 1], the range of the "
        "optimal decay; use schedule=polynomial for any p > 0"
    ),
    "schedule.p=0": "schedule.p=0.0 is not allowed: it must be above 0",
    "schedule.p=null": "schedule.p=null is not allowed: the profile 'graduated' needs it",
    "schedule=exponential schedule.decay=null": (
        "schedule.decay=null is not allowed: the profile 'exponential' needs it"
    ),
    "schedule=exponential schedule.decay=1": (
        "schedule.decay=1.0 is not allowed: the decay per epoch must be in (0, 1)"
    ),
    "schedule=exponential schedule.decay=0": (
        "schedule.decay=0.0 is not allowed: the decay per epoch must be in (0, 1)"
    ),
    "schedule=cosine_power schedule.power=null": (
        "schedule.power=null is not allowed: the profile 'cosine_power' needs it"
    ),
    "schedule=cosine_power schedule.power=1": (
        "schedule.power=1.0 is not allowed: it must be above 1 (towards 1 it is plain cosine)"
    ),
    "schedule=diminishing schedule.form=inverse_cube": (
        "schedule.form=inverse_cube is not allowed: it must be one of inverse_sqrt, "
        "inverse_time. Did you mean 'inverse_time'?"
    ),
    "schedule=polynomial schedule.p=null": (
        "schedule.p=null is not allowed: the profile 'polynomial' needs it"
    ),
    "schedule.noise_exponent=0": (
        "schedule.noise_exponent=0.0 is not allowed: ρ of δ = η C b^(-ρ) must be in (0, 1]; with "
        "ρ = 0 the batch has no part in the noise, so it can carry none of its decay: that is "
        "split=1, with any ρ"
    ),
    "schedule.noise_exponent=1 schedule.feedback=measured": (
        "schedule.noise_exponent=1.0 is not allowed: schedule.feedback follows the published "
        "δ = η √(C²/b); leave one of the two out"
    ),
    "schedule.lengths=even": (
        "schedule.lengths=even is not allowed: it must be one of equal, algorithm3."
    ),
    "schedule.h=-1": "schedule.h=-1.0 is not allowed: it must be 0 or more",
    "schedule.h=0.1": ("schedule.h=0.1 is not allowed: only schedule.lengths=algorithm3 has it"),
    "schedule=exponential schedule.lengths=algorithm3": (
        "schedule.lengths=algorithm3 is not allowed: exponential decays by the epoch, so its "
        "stages have no lengths of their own"
    ),
    "schedule=diminishing schedule.form=inverse_time schedule.a=0": (
        "schedule.a=0.0 is not allowed: it must be above 0"
    ),
    "schedule=diminishing schedule.a=5": (
        "schedule.a=5.0 is not allowed: only schedule.form=inverse_time has it"
    ),
    "schedule=step schedule.gamma=1": (
        "schedule.gamma=1.0 is not allowed: a constant decay rate γ must be in (0, 1)"
    ),
    "schedule=step schedule.gamma=0": (
        "schedule.gamma=0.0 is not allowed: a constant decay rate γ must be in (0, 1)"
    ),
    "schedule=step schedule.kappa=1.1": (
        "schedule.kappa=1.1 is not allowed: κ = η_{m+1}/η_m must be in (0, 1]"
    ),
    "schedule=step schedule.kappa=0": (
        "schedule.kappa=0.0 is not allowed: κ = η_{m+1}/η_m must be in (0, 1]"
    ),
    "schedule=step schedule.lam=0.5": (
        "schedule.lam=0.5 is not allowed: λ = b_{m+1}/b_m must be 1 or more"
    ),
    "schedule=step schedule.kappa=1 schedule.lam=1": (
        "schedule.kappa=1.0 is not allowed: schedule.kappa=1 and schedule.lam=1 give κ/√λ = "
        "1: the noise would not fall; it must be below 1 (for constant noise use "
        "schedule=constant)"
    ),
    "schedule=step schedule.kappa=1": (
        "schedule.kappa=1.0 is not allowed: schedule.kappa=1 and schedule.lam=1 give κ/√λ = "
        "1: the noise would not fall; it must be below 1 (for constant noise use "
        "schedule=constant)"
    ),
    "schedule=step schedule.kappa=1e-300 schedule.lam=1e300": (
        "schedule.kappa=1e-300 is not allowed: schedule.kappa=1e-300 and schedule.lam=1e+300 "
        "give κ/√λ = 0 to float precision; it must be above 0"
    ),
    "schedule=step schedule.kappa=0.5 split=0.3": (
        "split=0.3 is not allowed: schedule.kappa=0.5 and schedule.lam=1 make it 1; leave one out"
    ),
    "schedule=step schedule.kappa=0.5 schedule.gamma=0.4": (
        "schedule.gamma=0.4 is not allowed: schedule.kappa=0.5 and schedule.lam=1 give γ = "
        "κ/√λ = 0.5; leave one out"
    ),
    "schedule=step schedule.kappa=0.5 schedule.lam=4 schedule.gamma=0.4": (
        "schedule.gamma=0.4 is not allowed: schedule.kappa=0.5 and schedule.lam=4 give γ = "
        "κ/√λ = 0.25; leave one out"
    ),
    "schedule=step schedule.gamma=1e-200": (
        "schedule=step is not allowed: its noise level is δ_3 = 0 δ_1 in stage 3 of 5, which "
        "must be in (0, 1]; use fewer stages or a slower decay"
    ),
    "schedule=constant split=0.5": (
        "split=0.5 is not allowed: constant noise has no decay to split; leave it out"
    ),
    "schedule=cosine p=0.3": (
        "p=0.3 is not allowed: p has no effect with profile 'cosine', which has its "
        "own or none; p belongs to schedule=graduated and schedule=polynomial"
    ),
    "schedule=linear p=0.7": (
        "p=0.7 is not allowed: p has no effect with profile 'polynomial', which has its "
        "own or none; p belongs to schedule=graduated and schedule=polynomial"
    ),
    "schedule.feedback_limit=3": (
        "schedule.feedback_limit=3.0 is not allowed: only schedule.feedback=measured has a limit"
    ),
    "schedule.feedback=measured schedule.feedback_limit=1": (
        "schedule.feedback_limit=1.0 is not allowed: it must be above 1"
    ),
    "schedule.feedback=measure": (
        "schedule.feedback=measure is not allowed: it must be one of none, measured. Did you "
        "mean 'measured'?"
    ),
    "schedule.feedback=measured optimizer=shb": (
        "schedule.feedback=measured is not allowed: it follows the noise of optimizer=sgd; "
        "with momentum ‖∇f‖ has a part in it"
    ),
    "schedule.profile=gradated": (
        "schedule.profile=gradated is not allowed: it must be one of constant, graduated, "
        "polynomial, linear, step, exponential, cosine, cosine_power, diminishing, wsd. Did you "
        "mean 'graduated'?"
    ),
    "schedule.profile=null": (
        "schedule.profile=null is not allowed: it must be one of constant, graduated, "
        "polynomial, linear, step, exponential, cosine, cosine_power, diminishing, wsd"
    ),
    "schedule=wsd schedule.share=0": (
        "schedule.share=0.0 is not allowed: the share of the decay must be in (0, 1]"
    ),
    "schedule=wsd schedule.shape=lin": (
        "schedule.shape=lin is not allowed: it must be one of linear, cosine, sqrt. Did you mean "
        "'linear'?"
    ),
    "dataset.name=cifar11": (
        "dataset.name=cifar11 is not allowed: it must be one of digits, fashion_mnist, "
        "cifar10, cifar100, arrays, folder, imagenet. Did you mean 'cifar10'?"
    ),
    "dataset.validation=1": (
        "dataset.validation=1.0 is not allowed: it is a share and must be in [0, 1)"
    ),
    "dataset.classes=1": "dataset.classes=1 is not allowed: it must be 2 or more",
    "dataset.channels=0": "dataset.channels=0 is not allowed: it must be 1 or more",
    "dataset.image_size=0": "dataset.image_size=0 is not allowed: it must be 1 or more",
    "dataset.samples=1": "dataset.samples=1 is not allowed: it must be 2 or more",
    "dataset.augment.crop=8": (
        "dataset.augment.crop=8 is not allowed: it must be below the image size, 8"
    ),
    "dataset.augment.crop=-1": "dataset.augment.crop=-1 is not allowed: it must be 0 or more",
    "dataset.augment.rotation=181": (
        "dataset.augment.rotation=181.0 is not allowed: it must be in [0, 180] degrees"
    ),
    "dataset.augment.rotation=-1": (
        "dataset.augment.rotation=-1.0 is not allowed: it must be in [0, 180] degrees"
    ),
    "dataset=imagenet model=resnet18 dataset.augment.crop=4": (
        "dataset.augment.crop=4 is not allowed: imagenet has random resized crops and flips "
        "instead; it must be 0"
    ),
    "dataset=imagenet model=resnet18 dataset.augment.rotation=4": (
        "dataset.augment.rotation=4.0 is not allowed: imagenet has random resized crops and "
        "flips instead; it must be 0"
    ),
    "dataset.mean=[0.1,0.2]": (
        "dataset.mean=[0.1, 0.2] is not allowed: dataset.channels=1; it must have a number for each"
    ),
    "dataset.std=[0.1,0.2]": (
        "dataset.std=[0.1, 0.2] is not allowed: dataset.channels=1; it must have a number for each"
    ),
    "dataset.mean=[]": (
        "dataset.mean=[] is not allowed: dataset.channels=1; it must have a number for each"
    ),
    "dataset.mean=0.3": (
        "dataset.mean=0.3 is not allowed: it must be a list, such as [16] or [16,64]"
    ),
    "dataset.mean=[nan]": (
        "dataset.mean=[nan] is not allowed: pixels are in [0, 1]; so must each be"
    ),
    "dataset.mean=[-0.1]": (
        "dataset.mean=[-0.1] is not allowed: pixels are in [0, 1]; so must each be"
    ),
    "dataset.mean=[1.1]": (
        "dataset.mean=[1.1] is not allowed: pixels are in [0, 1]; so must each be"
    ),
    "dataset.mean=[a]": "dataset.mean[0]=a is not allowed: it must be a number",
    "dataset.std=[0]": "dataset.std=[0.0] is not allowed: each must be in [0.000001, 1,000,000]",
    "dataset.std=[inf]": (
        "dataset.std=[inf] is not allowed: each must be in [0.000001, 1,000,000]"
    ),
    "dataset.std=[nan]": (
        "dataset.std=[nan] is not allowed: each must be in [0.000001, 1,000,000]"
    ),
    "model.width=0": "model.width=0 is not allowed: it must be in [1, 1,024]",
    "model.width=1025": "model.width=1025 is not allowed: it must be in [1, 1,024]",
    "model=resnet34": (
        "model.stem=imagenet is not allowed: it divides an image's side by 32, and digits "
        "has 8 pixels; use model.stem=cifar"
    ),
    "model=resnet18 model.stem=imagenett": (
        "model.stem=imagenett is not allowed: it must be one of cifar, imagenet. Did you "
        "mean 'imagenet'?"
    ),
    "model.name=resnet18": (
        "model.name=resnet18 is not allowed: its settings come with it; choose it as model=resnet18"
    ),
    "model.name=resnet9": (
        "model.name=resnet9 is not allowed: it must be one of resnet18, resnet34, resnet8, "
        "wide_resnet28_10, or any model of timm's: model=timm model.name=resnet9. Did you mean "
        "'resnet8'?"
    ),
    "model.name=resnet50": (
        "model.name=resnet50 is not allowed: it must be one of resnet18, resnet34, resnet8, "
        "wide_resnet28_10, or any model of timm's: model=timm model.name=resnet50."
    ),
    "model.name=wide_resnet28_10": (
        "model.name=wide_resnet28_10 is not allowed: its settings come with it; choose it as "
        "model=wide_resnet28_10"
    ),
    "optimizer.name=adam": (
        "optimizer.name=adam is not allowed: it must be one of sgd, shb, nshb, adamw, or any "
        "optimizer of timm's: optimizer=timm optimizer.name=adam. Did you mean 'adamw'?"
    ),
    "optimizer.name=adamw": (
        "optimizer.name=adamw is not allowed: its settings come with it; choose it as "
        "optimizer=adamw"
    ),
    "optimizer=adamw optimizer.beta2=1": (
        "optimizer.beta2=1.0 is not allowed: β must be in [0, 1)"
    ),
    "optimizer=adamw optimizer.eps=0": "optimizer.eps=0.0 is not allowed: it must be above 0",
    "+optimizer.beta1=0.5": (
        "optimizer.beta1=0.5 is not allowed: optimizer=sgd has no beta1; use optimizer=adamw"
    ),
    "optimizer=adamw schedule.feedback=measured": (
        "schedule.feedback=measured is not allowed: it follows the noise of optimizer=sgd; use "
        "that, or leave it out"
    ),
    "optimizer=timm optimizer.name=sgd schedule.feedback=measured": (
        "schedule.feedback=measured is not allowed: it follows the noise of optimizer=sgd; use "
        "that, or leave it out"
    ),
    "optimizer=adamw +optimizer.decay_momentum=true": (
        "optimizer.decay_momentum=True is not allowed: it needs optimizer=shb or optimizer=nshb "
        "with a momentum above 0"
    ),
    "optimizer=timm +optimizer.constant_half_life=true": (
        "optimizer.constant_half_life=True is not allowed: only optimizer=adamw has it"
    ),
    "optimizer.momentum=0.9": (
        "optimizer.momentum=0.9 is not allowed: optimizer=sgd has no momentum; use "
        "optimizer=shb or optimizer=nshb"
    ),
    "optimizer=shb optimizer.momentum=1": (
        "optimizer.momentum=1.0 is not allowed: β must be in [0, 1)"
    ),
    "optimizer=shb optimizer.momentum=-0.1": (
        "optimizer.momentum=-0.1 is not allowed: β must be in [0, 1)"
    ),
    "optimizer.weight_decay=-1": (
        "optimizer.weight_decay=-1.0 is not allowed: it must be 0 or more"
    ),
    "optimizer=shb optimizer.momentum=0 optimizer.decay_momentum=true": (
        "optimizer.decay_momentum=True is not allowed: it needs optimizer=shb or "
        "optimizer=nshb with a momentum above 0"
    ),
    "optimizer=shb optimizer.decay_momentum=true split=1": (
        "split=1.0 is not allowed: optimizer.decay_momentum=true leaves the decay to the "
        "momentum; leave it out"
    ),
    "optimizer=nshb optimizer.decay_momentum=true max_batch_size=64": (
        "max_batch_size=64 is not allowed: optimizer.decay_momentum=true leaves the decay to "
        "the momentum; leave it out"
    ),
    "optimizer=shb optimizer.decay_momentum=true schedule=step schedule.kappa=0.5": (
        "schedule.kappa=0.5 is not allowed: optimizer.decay_momentum=true leaves the decay "
        "to the momentum; leave it out"
    ),
    "optimizer=shb optimizer.decay_momentum=true schedule=step schedule.lam=2": (
        "schedule.lam=2.0 is not allowed: optimizer.decay_momentum=true leaves the decay to "
        "the momentum; leave it out"
    ),
    "noise.batches=1": "noise.batches=1 is not allowed: a variance needs 2 mini-batches or more",
    "noise.batches=1438": (
        "noise.batches=1438 is not allowed: it must be at most the 1437 training samples"
    ),
    "noise.batch_size=0": "noise.batch_size=0 is not allowed: it must be 1 or more",
    "noise.online=1.1": (
        "noise.online=1.1 is not allowed: it is a share of the samples and must be in [0, 1]"
    ),
    "noise.online=-0.1": (
        "noise.online=-0.1 is not allowed: it is a share of the samples and must be in [0, 1]"
    ),
    "engine.device=gpu": (
        "engine.device=gpu is not allowed: it must be one of auto, cpu, cuda. Did you mean 'cpu'?"
    ),
    "engine.precision=fp8": (
        "engine.precision=fp8 is not allowed: it must be one of auto, fp32, bf16, fp16. Nothing "
        "here computes in 8 bits"
    ),
    "engine.batchnorm=global": (
        "engine.batchnorm=global is not allowed: it must be one of synced, local. Did you "
        "mean 'local'?"
    ),
    "engine.non_finite=ignore": (
        "engine.non_finite=ignore is not allowed: it must be one of stop, skip."
    ),
    "engine.graphs=maybe": (
        "engine.graphs=maybe is not allowed: it must be one of auto, true, false."
    ),
    "engine.background=maybe": (
        "engine.background=maybe is not allowed: it must be one of auto, true, false."
    ),
    "engine.micro_batch_size=0": "engine.micro_batch_size=0 is not allowed: it must be 1 or more",
    "engine.micro_batch_size=64 engine.memory=4": (
        "engine.memory=4.0 is not allowed: engine.micro_batch_size is set, which it would "
        "choose; leave one out"
    ),
    "engine.memory=0": "engine.memory=0.0 is not allowed: it must be above 0",
    "engine.threads=0": "engine.threads=0 is not allowed: it must be auto, or in [1, 1,024]",
    "engine.threads=1025": "engine.threads=1025 is not allowed: it must be auto, or in [1, 1,024]",
    "tracking.tool=mlflow": (
        "tracking.tool=mlflow is not allowed: it must be one of wandb, tensorboard, none."
    ),
    "tracking.mode=onlin": (
        "tracking.mode=onlin is not allowed: it must be one of offline, online, disabled. "
        "Did you mean 'online'?"
    ),
    "tracking.tags=x": (
        "tracking.tags=x is not allowed: it must be a list, such as [16] or [16,64]"
    ),
    "tracking.project=a/b": (
        "tracking.project=a/b is not allowed: W&B's projects have names of 1 to 128 characters, "
        "none of them / \\ # ? % :"
    ),
    "tracking.project=''": (
        "tracking.project= is not allowed: W&B's projects have names of 1 to 128 characters, "
        "none of them / \\ # ? % :"
    ),
    "tracking.tags=[a,'']": ("tracking.tags= is not allowed: W&B's tags have 1 to 64 characters"),
    "p=${nope}": "p: Interpolation key 'nope' not found",
    "dry_run=maybe": "dry_run=maybe is not allowed: it must be true or false",
    "data_dir=[a]": "data_dir=['a'] is not allowed: it must be text",
    "runs_dir=null": "runs_dir=null is not allowed: it needs a value",
    "model.name=null": "model.name=null is not allowed: it needs a value",
    "engine.device=null": "engine.device=null is not allowed: it must be one of auto, cpu, cuda",
    "engine.graphs=[1]": "engine.graphs=[1] is not allowed: it must be one of auto, true, false",
    "~dataset": (
        "dataset.name=null is not allowed: it must be one of digits, fashion_mnist, cifar10, "
        "cifar100, arrays, folder, imagenet"
    ),
    "seed={a:1}": "seed={'a': 1} is not allowed: it must be a whole number",
    "seed=???": "seed=??? is not allowed: it needs a value",
    "p=${p}": "p: Recursive interpolation detected",
    "seed=9223372036854775808": "seed=a number of 64 bits is not allowed: it is too large",
    "dataset.mean=[-9223372036854775808]": (
        "dataset.mean=a number of 64 bits is not allowed: it is too large"
    ),
    "+optimizer.nesterov=true": (
        "there is no setting 'optimizer.nesterov'. Did you mean 'optimizer.eps'?"
    ),
    "+foo=1": "there is no setting 'foo'.",
    "+lr=0.1": "there is no setting 'lr'. Did you mean 'learning_rate'?",
    "+optimizer.lr=0.1": "there is no setting 'optimizer.lr'. Did you mean 'learning_rate'?",
    "dataset=imagenet model=resnet18 dataset.workers=-1": (
        "dataset.workers=-1 is not allowed: it must be in [0, 1,024]"
    ),
    "dataset=imagenet model=resnet18 dataset.workers=1025": (
        "dataset.workers=1025 is not allowed: it must be in [0, 1,024]"
    ),
    "learning_rate=1e-300 schedule=step schedule.gamma=1e-20 split=1": (
        "learning_rate=1e-300 is not allowed: it underflows to η_3 = 0 in stage 3 of 5; use "
        "a larger one"
    ),
}


@pytest.mark.parametrize("typed", MESSAGES)
def test_a_mistake_is_answered_with(typed: str, make: Callable[..., Config]) -> None:
    with pytest.raises(UserError) as caught:
        make(*typed.split())
    assert str(caught.value) == f"the run {typed}: {MESSAGES[typed]}"


def test_every_rule_and_choice_has_a_message_above() -> None:
    answered = {message.split("=")[0] for message in MESSAGES.values()}
    assert {*RULES, *CHOICES} - answered == set()


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
