"""Images a second from disk: python -m benchmarks.images [rounds] [images].

It makes JPEGs of ImageNet's usual size. Then each contender delivers all of them once a round, as
float32 batches in this process, randomly cropped, flipped and normalised. Nothing is trained. Each
contender has two workers. The first epoch, in which the workers start, is not counted. `igo, cache`
is igo with dataset.cache=true; the time of making the cache is measured too. DALI=PYTHON adds
NVIDIA's loader, with two threads and from the files; PYTHON must have nvidia-dali-cuda120.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import datasets as torchvision
from torchvision import transforms

from benchmarks import report
from benchmarks.ratios import Spread
from igo.config.schema import AugmentConfig, DatasetConfig
from igo.data import class_folders, stored
from igo.data.source import Place
from igo.ground import allocator
from igo.train.datasets import shares
from igo.train.streamed import FolderData

SIZE, BATCH, WORKERS = 224, 64, 2
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
Deliver = Callable[[int], int]  # delivers an epoch, by its number; returns the number of images


def make(root: Path, count: int) -> float:
    """Write images of noise of all wavelengths, 500 x 375 or 375 x 500; return bytes an image."""
    random, total = np.random.default_rng(0), 0
    for part, n in (("train", count), ("val", 2)):
        for index in range(n):
            shape = (375, 500) if index % 4 else (500, 375)
            pixels = np.full((*shape, 3), 128.0)
            for cells in (2, 5, 12, 30, 80, 200):
                coarse = random.normal(0, 55 / cells**0.2, (cells, cells, 3))
                planes = [Image.fromarray(plane) for plane in np.moveaxis(coarse, 2, 0)]
                resized = [plane.resize(shape[::-1], Image.Resampling.BICUBIC) for plane in planes]
                pixels += np.stack([np.asarray(plane) for plane in resized], axis=-1)
            file = root / part / f"n{index % 2}" / f"{index:05}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=90)
            total += file.stat().st_size
    return total / (count + 4)


def usual(root: Path) -> Deliver:
    """torchvision's ImageFolder and transforms in PyTorch's loader, as in tutorials."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    folder = torchvision.ImageFolder(str(root / "train"), transform)
    loader = torch.utils.data.DataLoader(
        folder, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )
    return lambda _: sum(len(images) for images, _ in loader)


def ours(root: Path, count: int, cache: bool) -> Deliver:
    """The training batches of dataset=imagenet."""
    dataset = DatasetConfig(
        "imagenet", 2, 3, SIZE, count, MEAN, STD,
        augment=AugmentConfig(flip=True), workers=WORKERS, cache=cache,
    )  # fmt: skip
    images = class_folders.images("imagenet", Place(root.parent, image_size=SIZE, channels=3))
    parts = shares(images.labels(images.train), dataset)
    data = FolderData(dataset, images, parts, torch.device("cpu"))

    def deliver(epoch: int) -> int:
        order = torch.randperm(count).split(BATCH)
        return sum(len(batch) for batch, _ in data.train_batches(order, epoch))

    return deliver


def dali(root: Path, python: str) -> Deliver:
    """NVIDIA's loader, in another process."""
    settings = map(str, (root / "train", BATCH, WORKERS, SIZE))
    command = [python, str(Path(__file__).with_name("dali.py")), *settings]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )

    def deliver(_: int) -> int:
        assert process.stdin
        assert process.stdout
        process.stdin.write("go\n")
        return int(process.stdout.readline())

    return deliver


def turns(contenders: dict[str, Deliver], rounds: int) -> Iterator[dict[str, float]]:
    """Images a second by contender, for each round; each contender begins in its turn."""
    names = list(contenders)
    for epoch in range(rounds + 1):
        rates = {}
        for name in names[epoch % len(names) :] + names[: epoch % len(names)]:
            start = time.perf_counter()
            rates[name] = contenders[name](epoch) / (time.perf_counter() - start)
        if epoch:
            yield rates


def main(rounds: int, count: int) -> None:
    torch.set_num_threads(1)
    allocator.keep_freed_memory()  # as a run does
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "imagenet"
        size = make(root, count)
        start = time.perf_counter()
        stored.splits(class_folders.images("imagenet", Place(root.parent, None, None, SIZE, 3)))
        cached_rate = (count + 2) / (time.perf_counter() - start)
        contenders = {
            "torchvision": usual(root),
            "igo, files": ours(root, count, cache=False),
            "igo, cache": ours(root, count, cache=True),
        }
        if "DALI" in os.environ:
            contenders["DALI"] = dali(root, os.environ["DALI"])
        rates_of_rounds = list(turns(contenders, rounds))
    rows: list[dict[str, Any]] = [
        {
            "contender": name,
            "images_per_second": Spread.of([rates[name] for rates in rates_of_rounds]),
            "over_torchvision": Spread.of(
                [rates[name] / rates["torchvision"] for rates in rates_of_rounds]
            ),
        }
        for name in contenders
    ]
    report.show(f"{count} images of {size:,.0f} bytes; cached at {cached_rate:,.0f} images/s", rows)
    note = "Generated JPEGs, 500 x 375. A turn is an epoch; ratios are taken within a round."
    facts = report.facts("python -m benchmarks.images") | {"note": note}
    result = {"images": count, "bytes": size, "cached_per_second": cached_rate, "contenders": rows}
    report.save({"facts": facts, **result}, report.RESULTS / "images.json")


if __name__ == "__main__":
    typed = [int(word) for word in sys.argv[1:]]
    main(*typed, *(7, 2048)[len(typed) :])
