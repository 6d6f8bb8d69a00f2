"""What all contenders share: initial parameters, batches and images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

from igo.config.schema import Config, DatasetConfig
from igo.ground import seeds
from igo.loop.sampler import permutation
from igo.plans import batches
from igo.train import machine, models
from igo.train.datasets import subset
from igo.train.engine import Engine


def network(config: Config) -> nn.Module:
    """The model as this project initialises it."""
    torch.manual_seed(seeds.derive_seed(config.seed, "initialisation"))
    return models.build(config.model, config.dataset)


def engine(config: Config) -> Engine:
    """What this project would choose, without determinism: device, autocast type, threads."""
    return machine.choose(replace(config.engine, deterministic=False), config.dataset.image_size)


def epoch_batches(n: int, k: int, seed: int, epoch: int) -> list[list[int]]:
    """The k equal batches of an epoch."""
    return [batch.tolist() for batch in permutation(n, seed, epoch).tensor_split(k)]


class EpochBatches:
    """A batch sampler with this project's batches; their ``count`` may change between epochs.

    So a new batch size does not end the peers' workers. With the usual new DataLoader it would.
    """

    def __init__(self, config: Config) -> None:
        self._n, self._seed = config.dataset.samples, config.seed
        self.count, self.epoch = batches.count(self._n, config.batch_size), 1

    def __iter__(self) -> Iterator[list[int]]:
        return iter(epoch_batches(self._n, self.count, self._seed, self.epoch))

    def __len__(self) -> int:
        return self.count


def loader(config: Config, sampler: EpochBatches, finish: list[Any]) -> DataLoader[Any]:
    """PyTorch's DataLoader by its tuning guide: persistent workers, pinned memory on a GPU."""
    return DataLoader(
        training_images(config, finish),
        batch_sampler=sampler,
        num_workers=min(os.cpu_count() or 1, 8),
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )


def training_images(config: Config, finish: list[Any]) -> Dataset[Any]:
    """torchvision's data set, the same subset, augmented image by image with PIL."""
    transform = transforms.Compose([*pil_augmentation(config.dataset), *finish])
    maker = {"cifar100": datasets.CIFAR100, "fashion_mnist": datasets.FashionMNIST}
    images = maker[config.dataset.name](config.data_dir, train=True, transform=transform)
    indices = subset(torch.as_tensor(images.targets).numpy(), config.dataset.samples)
    return Subset(images, indices.tolist())


def pil_augmentation(dataset: DatasetConfig) -> list[Any]:
    """Crop, flip and rotation, in the published order."""
    augment, steps = dataset.augment, []
    if augment.crop:
        steps.append(transforms.RandomCrop(dataset.image_size, padding=augment.crop))
    if augment.flip:
        steps.append(transforms.RandomHorizontalFlip())
    if augment.rotation:
        steps.append(transforms.RandomRotation(augment.rotation))
    return steps


def to_float(dataset: DatasetConfig) -> list[Any]:
    """From a PIL image to a normalised float tensor."""
    return [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
