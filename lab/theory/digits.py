"""A small network on real images: 8×8 digits, 64–32–10, 2,410 parameters, as one vector."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PIXELS, CLASSES = 64, 10


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
    """A network of one hidden layer as a function of its parameter vector, float64.

    Leading dimensions of the parameters are independent copies.
    """

    hidden: int = 32
    activation: Callable[[Tensor], Tensor] = torch.relu

    @property
    def sizes(self) -> list[int]:
        """Lengths of the parts: first weights and biases, second weights and biases."""
        return [PIXELS * self.hidden, self.hidden, self.hidden * CLASSES, CLASSES]

    def initial(self, count: int, seed: int) -> Tensor:
        """Return `count` He-initialised parameter vectors, shape (count, P)."""
        random = torch.Generator().manual_seed(seed)
        scales = [(2 / PIXELS) ** 0.5, 0.0, (2 / self.hidden) ** 0.5, 0.0]
        parts = [
            scale * torch.randn(count, size, generator=random, dtype=torch.float64)
            for size, scale in zip(self.sizes, scales, strict=True)
        ]
        return torch.cat(parts, 1)

    def losses(self, parameters: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each sample, (..., b), of images (b, 64), labels (b,)."""
        w1, b1, w2, b2 = parameters.split(self.sizes, -1)
        inputs = images @ w1.unflatten(-1, (PIXELS, self.hidden)) + b1[..., None, :]
        hidden: Tensor = self.activation(inputs)
        logits: Tensor = hidden @ w2.unflatten(-1, (self.hidden, CLASSES)) + b2[..., None, :]
        log_share = functional.log_softmax(logits, -1)
        return -log_share.gather(-1, labels.expand(log_share.shape[:-1])[..., None])[..., 0]

    def loss(self, parameters: Tensor, data: Digits) -> Tensor:
        """Return the mean cross-entropy, shape (...)."""
        return self.losses(parameters, data.images, data.labels).mean(-1)

    def gradient(self, parameters: Tensor, data: Digits) -> Tensor:
        """Return the gradient of `loss` in the parameters, shape (..., P)."""
        point = parameters.detach().requires_grad_()
        # The copies do not mix, so the gradient of the sum has the gradient of each copy.
        (slope,) = torch.autograd.grad(self.loss(point, data).sum(), point)
        return slope

    def sample_gradients(self, parameters: Tensor, data: Digits) -> Tensor:
        """Return the gradient of every sample's loss at one parameter vector, (n, P)."""

        def sample_loss(point: Tensor, image: Tensor, label: Tensor) -> Tensor:
            return self.losses(point, image[None], label[None])[0]

        of_samples = torch.func.vmap(torch.func.grad(sample_loss), (None, 0, 0))
        gradients: Tensor = of_samples(parameters, data.images, data.labels)
        return gradients


NETWORK = Network()


def after_epochs(
    data: Digits, epochs: float, rate: float, batch: int, seed: int, network: Network = NETWORK
) -> Tensor:
    """Return the parameters (P,) of a network after SGD whose batches are drawn independently."""
    random = torch.Generator().manual_seed(seed)
    n, x = len(data.labels), network.initial(1, seed)[0]
    for _ in range(round(epochs * n / batch)):
        rows = torch.rand(n, generator=random).topk(batch).indices
        x = x.add(network.gradient(x, data.part(rows)), alpha=-rate)
    return x
