"""The images and the network of the examples; the images need no download."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

TEST = 360  # the last images of 1,797: their writers are not those of the first


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images, (N, 1, 8, 8) in [0, 1], with labels."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(bunch.target)
    train = TensorDataset(images[:-TEST], labels[:-TEST])
    return train, TensorDataset(images[-TEST:], labels[-TEST:])


def small_network() -> nn.Module:
    """Two convolutions and a linear layer: 9,930 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


@torch.no_grad()
def accuracy(model: nn.Module, test: TensorDataset) -> float:
    """Accuracy on the test images, as a fraction."""
    images, labels = test.tensors
    was = model.training
    logits: Tensor = model.eval()(images)
    model.train(was)
    return float((logits.argmax(1) == labels).float().mean())
