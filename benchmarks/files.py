"""The files that every contender reads: real images, or the text of Python's own library.

Images are Fashion-MNIST's, also resized to 32 x 32 in colour: a benchmark needs CIFAR's shape and
augmentation, not a download. A machine without Fashion-MNIST gets patterns in noise.
"""

import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.networks import CONTEXT
from igo.data.identity import read
from igo.data.readers import DEBIAN_FASHION_MNIST, Place

TEST = 1000  # samples


def write(folder: Path, kind: str, n: int) -> Path:
    """Write n training samples and a test set, unless the file is there; return the file.

    The kind is "grey" or "colour" for images, or "text".
    """
    file = folder / f"{kind}-{n}.npz"
    if not file.exists():
        inputs, targets = text(n + TEST) if kind == "text" else images(n + TEST, kind == "colour")
        arrays: Any = {"images": inputs[:n], "labels": targets[:n]}
        np.savez(file, **arrays, test_images=inputs[n:], test_labels=targets[n:])
    return file


def images(n: int, in_colour: bool) -> tuple[np.ndarray, np.ndarray]:
    """(n, 28, 28, 1) or (n, 32, 32, 3) uint8, and labels."""
    if DEBIAN_FASHION_MNIST.is_dir():
        split, _ = read("fashion_mnist", Place(Path("data")))
        pixels, labels = split.images[:n], split.labels[:n]
        if not in_colour:
            return pixels, labels
        large = [np.asarray(Image.fromarray(image[..., 0]).resize((32, 32))) for image in pixels]
        return np.repeat(np.stack(large)[..., None], 3, axis=3), labels
    random, shape = np.random.default_rng(0), (32, 32, 3) if in_colour else (28, 28, 1)
    labels = np.arange(n) % 10
    patterns, noise = (random.integers(0, 256, (count, *shape)) for count in (10, n))
    return ((patterns[labels] + 3 * noise) // 4).astype(np.uint8), labels


def text(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of CONTEXT bytes of Python's library (n, CONTEXT), and the bytes after each."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    content = np.frombuffer(b"".join(file.read_bytes() for file in files), np.uint8)
    order = np.random.default_rng(0).permutation(len(content) // CONTEXT - 1)[:n] * CONTEXT
    rows = content[order[:, None] + np.arange(CONTEXT + 1)]
    return rows[:, :-1], rows[:, 1:]
