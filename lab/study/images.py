"""The images of the studies as .npz files in data/, for dataset=arrays."""

import pickle
import sys
from operator import itemgetter
from pathlib import Path

import numpy as np

from igo.data.folders import image_in
from igo.data.identity import read
from igo.data.readers import Place
from igo.ground.files import durable

CLASSES, OF_CLASS = 10, 200  # classes of ``ten``, and training images of each


def cifar100(words: list[str]) -> None:
    """Write CIFAR-100, ordered by the names of classes, and in a class by file names.

    The folder in `words`, else data, has train/CLASS/NAME.png and test/CLASS/NAME.png, or the
    original files, which torchvision downloads if they are missing. Both give the same arrays.
    """
    folder = Path(words[0] if words else "data")
    if not (folder / "train").is_dir():
        read("cifar100", Place(folder))  # verifies checksums before a file is unpickled here
    splits = [sorted(_named(folder, name), key=itemgetter(0, 1)) for name in ("train", "test")]
    classes = sorted({class_name for class_name, *_ in splits[0]})
    arrays = {}
    for prefix, split in zip(("", "test_"), splits, strict=True):
        arrays[f"{prefix}images"] = np.stack([image for *_, image in split])
        arrays[f"{prefix}labels"] = np.array([classes.index(name) for name, *_ in split])
    _write("cifar100", arrays)


def _named(folder: Path, split: str) -> list[tuple[str, str, np.ndarray]]:
    """The name of the class, the name of the file and the pixels of each image of a split."""
    if (folder / "train").is_dir():
        files = (folder / split).glob("*/*.png")
        return [(file.parent.name, file.name, np.asarray(image_in(file))) for file in files]
    data_folder = folder / "cifar-100-python"
    contents = pickle.loads((data_folder / split).read_bytes(), encoding="latin1")
    names = pickle.loads((data_folder / "meta").read_bytes(), encoding="latin1")["fine_label_names"]
    images = contents["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    classes = [names[label] for label in contents["fine_labels"]]
    return list(zip(classes, contents["filenames"], images, strict=True))


def ten(words: list[str]) -> None:
    """Write ten random classes of CIFAR-100 at half its size for each of N seeds from FIRST on.

    Of the 600 images of a class 200 random ones are for training, and 400 for testing.
    """
    first_seed, n = map(int, words)
    require("cifar100", "cifar100 FOLDER")
    with np.load("data/cifar100.npz") as arrays_read:
        images, labels = (
            np.concatenate([arrays_read[name], arrays_read[f"test_{name}"]])
            for name in ("images", "labels")
        )
    for seed in range(first_seed, first_seed + n):
        random = np.random.default_rng(seed)
        indices_of_classes = [
            random.permutation(np.flatnonzero(labels == c))
            for c in random.choice(100, CLASSES, replace=False)
        ]
        arrays = {}
        for prefix, part in (("", slice(0, OF_CLASS)), ("test_", slice(OF_CLASS, None))):
            index = [indices[part] for indices in indices_of_classes]
            arrays[f"{prefix}images"] = _half(images[np.concatenate(index)])
            arrays[f"{prefix}labels"] = np.repeat(np.arange(CLASSES), [*map(len, index)])
        _write(f"ten/{seed}", arrays)


def require(name: str, command: str) -> None:
    """End the program if this file of data/ is missing; the command writes it."""
    file = Path("data", f"{name}.npz")
    if not file.is_file():
        sys.exit(f"error: {file} is missing; first: python -m lab.study {command}")


def _half(images: np.ndarray) -> np.ndarray:
    """Images of half the height and width: each pixel is the mean of 2×2, rounded."""
    n, height, width, channels = images.shape
    squares = images.reshape(n, height // 2, 2, width // 2, 2, channels)
    half: np.ndarray = np.rint(squares.mean(axis=(2, 4))).astype(np.uint8)
    return half


def _write(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Write data/NAME.npz, and print the shapes."""
    path = Path("data", f"{name}.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    print(f"{path}: {', '.join(f'{key} {array.shape}' for key, array in arrays.items())}")
