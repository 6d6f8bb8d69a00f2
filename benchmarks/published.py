"""The authors' published script's way: workers, PIL transforms, fp32, two ``.item()`` an update."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks import networks
from benchmarks.task import Task, Turns, device


class Images(Dataset[tuple[Tensor, int]]):
    """The images of a task, each augmented in the published order, as torchvision's data sets."""

    def __init__(self, task: Task) -> None:
        self._images, self._labels = task.arrays()
        side, channels = self._images.shape[2:]
        pixels = self._images.reshape(-1, channels) / 255  # of all images, (n·H·W, C)
        steps: list[Any] = [transforms.RandomCrop(side, padding=task.crop)] if task.crop else []
        steps += [transforms.RandomHorizontalFlip()]
        steps += [transforms.RandomRotation(task.rotation)] if task.rotation else []
        normalise = transforms.Normalize(pixels.mean(0), pixels.std(0))
        self._transform = transforms.Compose([*steps, transforms.ToTensor(), normalise])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self._images[place].squeeze())
        return self._transform(image), int(self._labels[place])


class Batches:
    """A batch sampler of k equal batches of a turn.

    So a new batch size does not end the workers. With the usual new DataLoader it would.
    """

    def __init__(self, task: Task, n: int) -> None:
        self._task, self._n, self.turn = task, n, 0

    def __iter__(self) -> Iterator[list[int]]:
        order = self._task.order(self.turn, self._n)
        return (batch.tolist() for batch in order.tensor_split(len(self)))

    def __len__(self) -> int:
        return self._task.turns[self.turn][0]


def train(task: Task, turns: Turns) -> nn.Module:
    """Train in the turns of a task; return the network."""
    torch.manual_seed(0)
    network: nn.Module = getattr(networks, task.network)().to(device()).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=task.turns[0][1])
    data = Images(task)
    batches = Batches(task, len(data))
    options: dict[str, Any] = {"pin_memory": torch.cuda.is_available(), "persistent_workers": True}
    loader = DataLoader(data, batch_sampler=batches, num_workers=os.cpu_count() or 1, **options)
    for batches.turn, (k, rate) in enumerate(task.turns):
        optimizer.param_groups[0]["lr"] = rate
        turns.begin()
        running_loss, correct, total = 0.0, 0, 0
        for images, labels in loader:
            images, labels = images.to(device()), labels.to(device())  # noqa: PLW2901
            optimizer.zero_grad()
            outputs = network(images)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item() * len(labels)
            correct += (outputs.argmax(dim=1) == labels).sum().item()
            total += len(labels)
        turns.end(total, k)
    return network
