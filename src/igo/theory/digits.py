"""A small network on real images: 8×8 digits, 64–32–10, 2,410 parameters, in NumPy.

Small enough that explicit smoothing can be afforded, large enough to show what it costs. Written
out by hand rather than with autograd, so that perturbed copies of all parameters and independent
seeds are simply leading dimensions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igo.theory.functions import Array

HIDDEN = 32
SHAPES = ((64, HIDDEN), (HIDDEN,), (HIDDEN, 10), (10,))
PARAMETERS = sum(int(np.prod(shape)) for shape in SHAPES)


@dataclass(frozen=True)
class Digits:
    """Images (n, 64) scaled to mean 0 and spread 1 over all pixels, labels (n,), split 80/20."""

    train_images: Array
    train_labels: NDArray[np.int64]
    test_images: Array
    test_labels: NDArray[np.int64]


def load(seed: int = 0) -> Digits:
    """Return scikit-learn's 1,797 digits with a stratified fifth held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=seed)
    return Digits(parts[0], parts[2], parts[1], parts[3])


def initial(count: int, seed: int) -> Array:
    """Return `count` He-initialised parameter vectors, shape (count, PARAMETERS)."""
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((count, 64 * HIDDEN)) * np.sqrt(2 / 64)
    second = rng.standard_normal((count, HIDDEN * 10)) * np.sqrt(2 / HIDDEN)
    zeros = np.zeros((count, 10))
    return np.concatenate([first, np.zeros((count, HIDDEN)), second, zeros], 1)


def _unpack(parameters: Array) -> list[Array]:
    parts, start = [], 0
    for shape in SHAPES:
        stop = start + int(np.prod(shape))
        parts.append(parameters[..., start:stop].reshape(*parameters.shape[:-1], *shape))
        start = stop
    return parts


def _forward(parameters: Array, images: Array) -> tuple[Array, Array]:
    w1, b1, w2, b2 = _unpack(parameters)
    hidden = np.maximum(images @ w1 + b1[..., None, :], 0)
    return hidden, hidden @ w2 + b2[..., None, :]


def loss(parameters: Array, images: Array, labels: NDArray[np.int64]) -> Array:
    """Return mean cross-entropy, shape (...), of parameters (..., P) on images (..., b, 64)."""
    _, logits = _forward(parameters, images)
    logits = logits - logits.max(-1, keepdims=True)
    log_total = np.log(np.exp(logits).sum(-1))
    chosen = np.take_along_axis(logits, np.broadcast_to(labels, logits.shape[:-1])[..., None], -1)[
        ..., 0
    ]
    return np.asarray((log_total - chosen).mean(-1))


def gradient(parameters: Array, images: Array, labels: NDArray[np.int64]) -> Array:
    """Return the gradient of `loss` in the parameters, shape (..., P)."""
    _, _, w2, _ = _unpack(parameters)
    hidden, logits = _forward(parameters, images)
    share = np.exp(logits - logits.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    share = share - (labels[..., None] == np.arange(10))
    share /= labels.shape[-1]
    back = (share @ w2.swapaxes(-1, -2)) * (hidden > 0)
    parts = [
        np.broadcast_to(images, (*hidden.shape[:-1], 64)).swapaxes(-1, -2) @ back,
        back.sum(-2),
        hidden.swapaxes(-1, -2) @ share,
        share.sum(-2),
    ]
    lead = parameters.shape[:-1]
    return np.concatenate([part.reshape(*lead, -1) for part in parts], -1)


def accuracy(parameters: Array, images: Array, labels: NDArray[np.int64]) -> Array:
    """Return the fraction classified rightly, shape (...)."""
    _, logits = _forward(parameters, images)
    return np.asarray((logits.argmax(-1) == labels).mean(-1))


@dataclass(frozen=True)
class Recipe:
    """One way to spend sample gradients, by stage: δ_m (explicit only), η_m, b_m.

    `copies` perturbed parameter vectors a step for explicit smoothing (Gaussian, antithetic,
    `noise_levels` the standard deviation of every parameter), or 0 for none.
    """

    learning_rates: Array
    batch_sizes: NDArray[np.int64]
    noise_levels: Array
    copies: int = 0


def train(data: Digits, recipe: Recipe, start: Array, budget: int, seed: int) -> list[Array]:
    """Spend `budget` sample gradients per run, the same in every stage; runs are (runs, P).

    Returns the parameters after each stage. One sample gradient is one forward and backward pass
    of one image; a step with k perturbed copies and batch b costs k·b of them.
    """
    rng = np.random.default_rng(seed)
    x, n, results = start.copy(), len(data.train_labels), []
    stages = len(recipe.learning_rates)
    for rate, size, level in zip(
        recipe.learning_rates, recipe.batch_sizes, recipe.noise_levels, strict=True
    ):
        b = min(int(size), n)
        for _ in range(max(1, round(budget / stages / (b * max(1, recipe.copies))))):
            rows = np.argsort(rng.random((len(x), n)), 1)[:, :b] if b < n else None
            images = data.train_images[None] if rows is None else data.train_images[rows]
            labels = data.train_labels[None] if rows is None else data.train_labels[rows]
            if recipe.copies:
                half = rng.standard_normal((recipe.copies // 2, *x.shape))
                moved = x - level * np.concatenate([half, -half])
                slope = gradient(moved, images[None], labels[None]).mean(0)
            else:
                slope = gradient(x, images, labels)
            x = x - rate * slope
        results.append(x.copy())
    return results
