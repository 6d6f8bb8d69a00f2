"""The smoothed loss of any network at a point: by the ball of radius δ, and by SGD's own noise."""

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import length_hint
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from igo.ground.numbers import POSITIVE, at_least, check
from igo.noise.measure import Loss, measure_noise, untouched
from igo.noise.noise import noise_level, refuse


@dataclass(frozen=True)
class SmoothedLoss:
    """How much smoothing raises the loss at a point x, with standard errors over the draws.

    ``loss`` is f(x), and ``delta`` is δ = η√(C²/b). ``ball`` is E f(x − δu) − f(x) for u uniform
    in the unit ball, as the slides smooth f. ``own`` is E f(x − ηω) − f(x) for ω = ∇f_S(x) − ∇f(x)
    of mini-batches S, as SGD does.
    """

    loss: float
    delta: float
    ball: float
    ball_error: float
    own: float
    own_error: float


def smoothed_loss(
    network: nn.Module,
    loss: Loss,
    loader: Iterable[Any],
    evaluation: Iterable[Any],
    *,
    n: int,
    learning_rate: float,
    draws: int = 32,
    seed: int = 0,
) -> SmoothedLoss:
    """Measure by how much noise raises the loss, and leave the model unchanged.

    This takes 3 · ``draws`` + 1 passes over ``evaluation``. From ``loader`` it takes the batches of
    ``igo.measure_noise``, one whole pass, and ``draws`` batches. The part of the rise that is
    linear in a draw has the mean 0, and is left out.

    >>> x = torch.randn(64, 3, generator=torch.manual_seed(0))
    >>> data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    >>> loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, drop_last=True)
    >>> model, loss = torch.nn.Linear(3, 1), torch.nn.functional.mse_loss
    >>> smoothed = igo.smoothed_loss(model, loss, loader, [(x, x.sum(1, keepdim=True))],
    ...                              n=64, learning_rate=0.1)
    >>> 0 < smoothed.ball < smoothed.own
    True

    Args:
        network: in the mode that it is trained in.
        loss: mean loss of a batch (outputs, targets).
        loader: shuffled batches (inputs, targets) of one size b, as for ``igo.measure_noise``.
        evaluation: batches (inputs, targets) over which f is computed, the same in each pass: all
            training samples, or some of them.
        n: training samples that ``loader`` draws from.
        learning_rate: η.
        draws: how many draws of each of the two kinds of noise.
        seed: of the draws, the loader's shuffle, dropout and augmentation.

    Raises:
        ValueError: as ``igo.measure_noise``; η is not above 0, there are fewer than 2 draws, or
            batches have no length.
    """
    check(POSITIVE, learning_rate=learning_rate)
    check(at_least(2), whole=True, draws=draws)
    for name, argument in (("loader", loader), ("evaluation", evaluation)):
        # length_hint is the length where there is one, and 0 where there is none.
        is_reusable = not isinstance(argument, Iterator) and length_hint(argument) > 0
        cure = "it is passed over again and again: give a DataLoader or a list, with a length"
        refuse(not is_reusable, f"{name}: {cure}")
    noise = measure_noise(network, loss, loader, n=n, seed=seed)
    delta = noise_level(learning_rate, noise.batch_size, noise.variance)
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    sizes = [parameter.numel() for parameter in parameters.values()]
    x = parameters_to_vector(parameters.values()).detach()

    @torch.no_grad()
    def loss_at(point: Tensor) -> float:
        """f at a point (d,), whose parameters stand in for the network's for this call alone."""
        parts = map(Tensor.view_as, point.split(sizes), parameters.values())
        moved_parameters = dict(zip(parameters, parts, strict=True))
        total, samples = 0.0, 0
        for inputs, targets in evaluation:
            outputs = functional_call(network, moved_parameters, (inputs,))
            total += float(loss(outputs, targets)) * len(targets)
            samples += len(targets)
        return total / samples

    def gradient(batch: Any) -> Tensor:
        """∇f_S(x) of a batch, (d,)."""
        inputs, targets = batch
        batch_loss = loss(network(inputs), targets)
        return parameters_to_vector(torch.autograd.grad(batch_loss, [*parameters.values()]))

    ball_rises: list[float] = []
    own_rises: list[float] = []
    with untouched(network, seed):
        loss_at_x = loss_at(x)
        for _ in range(draws):
            direction = torch.randn_like(x)
            # A ball of radius r has the share r^d of the unit ball's volume, d parameters. So the
            # point is uniform in the ball if radius^d is uniform in [0, 1).
            radius = torch.rand_like(x[0]) ** (1 / len(x))
            step = direction * (delta * radius / direction.norm())
            # Both signs of a step are as likely. In their mean the part that is linear vanishes.
            ball_rises.append((loss_at(x + step) + loss_at(x - step)) / 2 - loss_at_x)
        mean = sum(map(gradient, loader), torch.zeros_like(x)) / length_hint(loader)  # ∇f(x)
        # The loader is passed over as often as ``draws`` needs.
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        for batch in itertools.islice(batches, draws):
            # The noise of a batch is skewed, so the opposite step is not as likely, and no mean is
            # taken with it. The linear part of the rise has mean 0: without it the mean is the
            # same, and varies less.
            step = learning_rate * (gradient(batch) - mean)
            own_rises.append(loss_at(x - step) - loss_at_x + float(mean @ step))
    return SmoothedLoss(
        loss=loss_at_x,
        delta=delta,
        ball=statistics.fmean(ball_rises),
        ball_error=statistics.stdev(ball_rises) / math.sqrt(draws),
        own=statistics.fmean(own_rises),
        own_error=statistics.stdev(own_rises) / math.sqrt(draws),
    )
