"""A small network on real images: 8×8 digits, 64–32–10, 2,410 parameters, as one vector."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PIXELS, HIDDEN, CLASSES = 64, 32, 10
SIZES = [PIXELS * HIDDEN, HIDDEN, HIDDEN * CLASSES, CLASSES]  # weights and biases of two layers


@dataclass(frozen=True)
class Digits:
    """Images (n, 64) scaled to mean 0 and spread 1 over all pixels, and labels (n,)."""

    images: Tensor
    labels: Tensor

    def part(self, rows: Tensor) -> "Digits":
        """Return these samples."""
        return Digits(self.images[rows], self.labels[rows])


def load() -> Digits:
    """Return scikit-learn's 1,797 digits less a stratified fifth."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    images, _, labels, _ = map(torch.from_numpy, parts)
    return Digits(images, labels)


@dataclass(frozen=True)
class Network:
    """A network of one hidden layer as a function of its parameter vector (P,), float64."""

    activation: Callable[[Tensor], Tensor] = torch.relu

    def initial(self, seed: int) -> Tensor:
        """Return a He-initialised parameter vector."""
        random = torch.Generator().manual_seed(seed)
        scales = [(2 / PIXELS) ** 0.5, 0.0, (2 / HIDDEN) ** 0.5, 0.0]
        parts = [
            scale * torch.randn(size, generator=random, dtype=torch.float64)
            for size, scale in zip(SIZES, scales, strict=True)
        ]
        return torch.cat(parts)

    def loss(self, parameters: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of images (b, 64), labels (b,)."""
        w1, b1, w2, b2 = parameters.split(SIZES)
        hidden = self.activation(images @ w1.view(PIXELS, HIDDEN) + b1)
        return functional.cross_entropy(hidden @ w2.view(HIDDEN, CLASSES) + b2, labels)

    def gradient(self, parameters: Tensor, data: Digits) -> Tensor:
        """Return the gradient of `loss` in the parameters, shape (P,)."""
        slope: Tensor = torch.func.grad(self.loss)(parameters, data.images, data.labels)
        return slope

    def sample_gradients(self, parameters: Tensor, data: Digits) -> Tensor:
        """Return the gradient of every sample's loss at one parameter vector, (n, P)."""
        of_samples = torch.func.vmap(torch.func.grad(self.loss), (None, 0, 0))
        # Each sample is a batch of one.
        gradients: Tensor = of_samples(parameters, data.images[:, None], data.labels[:, None])
        return gradients


NETWORK = Network()


def after_epochs(
    data: Digits, epochs: float, rate: float, batch: int, seed: int, network: Network = NETWORK
) -> Tensor:
    """Return the parameters (P,) of a network after SGD whose batches are drawn independently."""
    random = torch.Generator().manual_seed(seed)
    n, x = len(data.labels), network.initial(seed)
    for _ in range(round(epochs * n / batch)):
        rows = torch.rand(n, generator=random).topk(batch).indices
        x = x.add(network.gradient(x, data.part(rows)), alpha=-rate)
    return x
