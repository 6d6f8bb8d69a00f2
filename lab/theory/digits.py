"""A small network on real images: 8×8 digits, 64–32–10, 2,410 parameters, as one vector."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

PIXELS, HIDDEN, CLASSES = 64, 32, 10
SIZES = [PIXELS * HIDDEN, HIDDEN, HIDDEN * CLASSES, CLASSES]  # weights and biases of two layers


def load() -> TensorDataset:
    """Return images (n, 64) and labels (n,): scikit-learn's 1,797 digits less a stratified fifth.

    Images are scaled to mean 0 and spread 1 over all pixels.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    splits = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    images, _, labels, _ = map(torch.from_numpy, splits)
    return TensorDataset(images, labels)


@dataclass(frozen=True)
class Network:
    """A network of one hidden layer as a function of its parameter vector (P,), float64."""

    activation: Callable[[Tensor], Tensor] = torch.relu

    def initial(self, seed: int) -> Tensor:
        """Return a parameter vector (P,): weights by He et al. 2015, and biases of 0."""
        random = torch.Generator().manual_seed(seed)
        scales = [(2 / PIXELS) ** 0.5, 0.0, (2 / HIDDEN) ** 0.5, 0.0]
        parameters = [
            scale * torch.randn(size, generator=random, dtype=torch.float64)
            for size, scale in zip(SIZES, scales, strict=True)
        ]
        return torch.cat(parameters)

    def loss(self, parameters: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of images (b, 64), labels (b,)."""
        w1, b1, w2, b2 = parameters.split(SIZES)
        hidden = self.activation(images @ w1.view(PIXELS, HIDDEN) + b1)
        return functional.cross_entropy(hidden @ w2.view(HIDDEN, CLASSES) + b2, labels)

    def gradient(self, parameters: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of `loss` in the parameters, shape (P,)."""
        slope: Tensor = torch.func.grad(self.loss)(parameters, images, labels)
        return slope

    def sample_gradients(self, parameters: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of every sample's loss at one parameter vector, (n, P)."""
        of_samples = torch.func.vmap(torch.func.grad(self.loss), (None, 0, 0))
        # Each sample is a batch of one.
        gradients: Tensor = of_samples(parameters, images[:, None], labels[:, None])
        return gradients


NETWORK = Network()


def after_epochs(
    data: TensorDataset, epochs: float, rate: float, b: int, seed: int, network: Network = NETWORK
) -> Tensor:
    """Return the parameters (P,) of a network after SGD from `initial`.

    Each batch of b samples is drawn without replacement, independently of the others. An epoch is
    n/b updates.
    """
    random = torch.Generator().manual_seed(seed)
    n, x = len(data), network.initial(seed)
    for _ in range(round(epochs * n / b)):
        rows = torch.rand(n, generator=random).topk(b).indices  # b random ones of n
        x = x.add(network.gradient(x, *data[rows]), alpha=-rate)
    return x
