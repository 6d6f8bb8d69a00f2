"""What is measured at the end of a run with new statistics of BatchNorm; kept in after.json.

The statistics are the plain mean over batches of AT_ONCE training images, drawn without
replacement, at the weights that are evaluated: of images as they are, and again of augmented ones.
Running statistics are a mean over the last updates, each at other weights and of b images.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from igo.ground.files import write_atomically
from igo.ground.seeds import derive_seed, generator
from igo.train.on_device import Batch, Batches
from igo.train.training import Training

FILE = "after.json"
AT_ONCE = 500  # images of a batch, in the statistics and in the evaluation
ANNEAL, ANNEAL_SIZE = 400, 128  # updates, and images of each
Evaluation = tuple[float, float]  # mean loss, and accuracy in %


def measure(folder: Path, run: Training, rate: float | None = None) -> dict[str, float]:
    """Measure a finished run, with ``rate`` also after an anneal at this η; write after.json."""
    numbers = anew(run, "anew")
    if rate is not None:
        anneal(run, rate, ANNEAL)
        numbers |= anew(run, "annealed")
    write_atomically(folder / FILE, json.dumps(numbers) + "\n")
    return numbers


def anneal(run: Training, rate: float, updates: int) -> None:
    """Train the run's network by so many updates of plain SGD, of ANNEAL_SIZE images each.

    All arms of a seed have the same images in the same order. A pass has whole batches only.
    """
    n, seed = run.data.n, run.config.seed
    optimizer, updates_of_pass = torch.optim.SGD(run.network.parameters(), rate), n // ANNEAL_SIZE
    run.network.train()
    for first in range(0, updates, updates_of_pass):
        number = first // updates_of_pass  # of the pass
        order = torch.randperm(n, generator=generator(seed, "anneal", number))
        parts = order.split(ANNEAL_SIZE)[: min(updates_of_pass, updates - first)]
        for batch in run.data.train_batches(parts, derive_seed(seed, "anneal", number)):
            run.engine.backward(run.network, [batch], ANNEAL_SIZE)
            run.engine.update(optimizer)


def anew(run: Training, name: str) -> dict[str, float]:
    """Losses and accuracies in fp32, first with statistics of images as they are.

    The numbers are NAME_train_loss, NAME_accuracy of the test set in %, and NAME_log_loss, which is
    100 ln of the test loss. With statistics of augmented images NAME is followed by _augmented.
    """
    numbers = {}
    seed = derive_seed(run.config.seed, "statistics")
    augmented = run.data.train_batches(indices(run), seed)
    for kind, batches in ((name, plain_images(run)), (f"{name}_augmented", augmented)):
        (numbers[f"{kind}_train_loss"], _), (loss, accuracy) = with_statistics(run, batches)
        numbers[f"{kind}_accuracy"] = accuracy
        numbers[f"{kind}_log_loss"] = 100 * math.log(loss)
    return numbers


def indices(run: Training) -> tuple[Tensor, ...]:
    """The indices of all training images, in random batches of AT_ONCE."""
    order = torch.randperm(run.data.n, generator=generator(0, "statistics"))
    batches: tuple[Tensor, ...] = order.split(AT_ONCE)
    return batches


def plain_images(run: Training) -> Batches:
    """All training images as they are, in these batches."""
    return run.data.plain_batches(indices(run))


def with_statistics(run: Training, batches: Iterable[Batch]) -> tuple[Evaluation, Evaluation]:
    """The evaluations on the training images and on the test set.

    BatchNorm's running statistics become the mean of those of the batches.
    """
    update_bn(batches, run.network.train())
    return evaluated(run, plain_images(run)), evaluated(run, run.data.test_batches())


def evaluated(run: Training, batches: Batches) -> Evaluation:
    """The evaluation on these batches, in fp32 and with the present running statistics."""
    loss, share = replace(run.engine, autocast=None).evaluate(run.network, batches)
    return loss, 100 * share
