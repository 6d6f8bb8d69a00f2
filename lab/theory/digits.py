"""A small network on real images: 8×8 digits, 64–32–10, 2,410 parameters.

It is small enough for explicit smoothing, and large enough to show its cost. All parameters are one
vector. Leading dimensions are independent runs, such as seeds or perturbed copies.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lab.theory.functions import Array

PIXELS, CLASSES = 64, 10


@dataclass(frozen=True)
class Digits:
    """Images (n, 64) scaled to mean 0 and spread 1 over all pixels, labels (n,), split 80/20."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """Training images and labels."""
        return self.train_images, self.train_labels


def load(seed: int = 0) -> Digits:
    """Return scikit-learn's 1,797 digits with a stratified fifth held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=seed)
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, parts)
    return Digits(train_images, train_labels, test_images, test_labels)


@dataclass(frozen=True)
class Network:
    """A network of one hidden layer as a function of its parameter vector, float64."""

    hidden: int = 32
    activation: Callable[[Tensor], Tensor] = torch.relu

    @property
    def sizes(self) -> list[int]:
        """Lengths of the parts: first weights and biases, second weights and biases."""
        return [PIXELS * self.hidden, self.hidden, self.hidden * CLASSES, CLASSES]

    @property
    def parameters(self) -> int:
        """The number P of parameters."""
        return sum(self.sizes)

    def initial(self, count: int, seed: int) -> Tensor:
        """Return `count` He-initialised parameter vectors, shape (count, P)."""
        random = torch.Generator().manual_seed(seed)
        scales = [(2 / PIXELS) ** 0.5, 0.0, (2 / self.hidden) ** 0.5, 0.0]
        parts = [
            scale * torch.randn(count, size, generator=random, dtype=torch.float64)
            for size, scale in zip(self.sizes, scales, strict=True)
        ]
        return torch.cat(parts, 1)

    def logits(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Return (..., b, 10) of parameters (..., P) on images (..., b, 64)."""
        w1, b1, w2, b2 = parameters.split(self.sizes, -1)
        first = images @ w1.unflatten(-1, (PIXELS, self.hidden)) + b1[..., None, :]
        hidden: Tensor = self.activation(first)
        logits: Tensor = hidden @ w2.unflatten(-1, (self.hidden, CLASSES)) + b2[..., None, :]
        return logits

    def losses(self, parameters: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each sample, shape (..., b); labels are (..., b)."""
        log_share = functional.log_softmax(self.logits(parameters, images), -1)
        return -log_share.gather(-1, labels.expand(log_share.shape[:-1])[..., None])[..., 0]

    def loss(self, parameters: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, shape (...)."""
        return self.losses(parameters, images, labels).mean(-1)

    def gradient(self, parameters: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of `loss` in the parameters, shape (..., P)."""
        point = parameters.detach().requires_grad_()
        # runs do not mix, so the gradient of the sum has the gradient of each run
        (slope,) = torch.autograd.grad(self.loss(point, images, labels).sum(), point)
        return slope

    def accuracy(self, parameters: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the accuracy as a fraction, shape (...)."""
        right = self.logits(parameters, images).argmax(-1) == labels
        return right.double().mean(-1)


NETWORK = Network()


@dataclass(frozen=True)
class Recipe:
    """A method of training: η_m, b_m and δ_m of each stage.

    Explicit smoothing uses `copies` perturbed parameter vectors a step: Gaussian and antithetic,
    with δ_m (`noise_levels`) the standard deviation of every parameter. 0 is no smoothing.
    """

    learning_rates: Array
    batch_sizes: NDArray[np.int64]
    noise_levels: Array
    copies: int = 0
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD


def train(
    data: Digits,
    recipe: Recipe,
    start: Tensor,
    budget: int,
    seed: int,
    network: Network = NETWORK,
) -> list[Tensor]:
    """Spend `budget` sample gradients per run from `start` (runs, P), the same in every stage.

    Returns the parameters after each stage. A sample gradient is a forward and backward pass of
    an image; a step with k perturbed copies and batch b costs k·b of them.
    """
    random = torch.Generator().manual_seed(seed)
    x, n, results = start.clone(), len(data.train_labels), []
    optimizer = recipe.optimizer([x], lr=1.0)  # type: ignore[call-arg]
    stages = zip(recipe.learning_rates, recipe.batch_sizes, recipe.noise_levels, strict=True)
    share = budget / len(recipe.learning_rates)
    for rate, size, level in stages:
        b = min(int(size), n)
        optimizer.param_groups[0]["lr"] = float(rate)
        for _ in range(max(1, round(share / (b * max(1, recipe.copies))))):
            images, labels = data.train
            if b < n:
                rows = torch.rand(len(x), n, generator=random).topk(b).indices
                images, labels = images[rows], labels[rows]
            point = x
            if recipe.copies:
                shape = (recipe.copies // 2, *x.shape)
                half = torch.randn(shape, generator=random, dtype=x.dtype)
                point = x - float(level) * torch.cat([half, -half])
            slope = network.gradient(point, images, labels)
            x.grad = slope.mean(0) if recipe.copies else slope
            optimizer.step()
        results.append(x.clone())
    return results


def after_epochs(data: Digits, epochs: int, rate: float, batch: int, seed: int) -> Tensor:
    """Return the parameters (P,) of a network after some epochs of SGD."""
    start = NETWORK.initial(1, seed)
    recipe = Recipe(np.array([rate]), np.array([batch]), np.zeros(1))
    budget = epochs * len(data.train_labels)
    return train(data, recipe, start, budget, seed)[0][0] if epochs else start[0]


def sample_gradients(network: Network, parameters: Tensor, data: Digits) -> Tensor:
    """Return the gradient of every training sample's loss at one parameter vector, (n, P)."""

    def sample_loss(point: Tensor, image: Tensor, label: Tensor) -> Tensor:
        return network.losses(point, image[None], label[None])[0]

    of_samples = torch.func.vmap(torch.func.grad(sample_loss), (None, 0, 0))
    gradients: Tensor = of_samples(parameters, *data.train)
    return gradients


def largest_curvature(network: Network, parameters: Tensor, data: Digits, steps: int = 40) -> float:
    """Return the Hessian eigenvalue of largest size of the training loss, by power iteration.

    It is L_g at the point. `parameters` is a vector (P,).
    """
    point = parameters.detach().requires_grad_()
    loss = network.loss(point, *data.train)
    (slope,) = torch.autograd.grad(loss, point, create_graph=True)
    random = torch.Generator().manual_seed(0)
    v = torch.randn(parameters.shape, generator=random, dtype=parameters.dtype)
    value = 0.0
    for _ in range(steps):
        v = v / v.norm()
        (product,) = torch.autograd.grad(slope @ v, point, retain_graph=True)
        value, v = float(v @ product), product
    return value
