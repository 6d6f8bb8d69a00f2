"""Opens the data set of a run, and holds images out.

A new data set that fits in memory takes one function in READERS and one file in conf/dataset/.
"""

import numpy as np
import torch

from igo.config.schema import Config, DatasetConfig, draw_of, held_out, place_of
from igo.data import readers
from igo.data.readers import subset
from igo.ground.errors import require
from igo.train.on_device import Data, TensorData

MOST_BYTES = 2 * 2**30  # Decoded images of more bytes are not kept on the device.


def open_data(config: Config, device: torch.device) -> Data:
    """Read the configured data set."""
    dataset = config.dataset
    if dataset.name in readers.FOLDERS:
        return _of_folders(config, device)
    train, test = readers.read(dataset.name, place_of(config))
    _check_classes(dataset, train.labels, test.labels)
    side = dataset.image_size
    for images in (train.images, test.images):
        shape = images.shape[1:]
        text = "x".join(map(str, shape))
        advice = f"the files hold images of {text} (height x width x channels)"
        require(shape == (side, side, dataset.channels), "dataset.image_size", side, advice)
    rows, held_rows = shares(train.labels, dataset, draw_of(config))
    parts = {"train": train.of(rows), "test": test, "validation": train.of(held_rows)}
    return TensorData(dataset, parts, device)


def _of_folders(config: Config, device: torch.device) -> Data:
    """Images in folders: on the device if they are few, else decoded in each pass."""
    from igo.data import folders
    from igo.train.on_disk import DiskData

    dataset = config.dataset
    train, test = folders.splits(dataset.name, place_of(config))
    labels = np.array(train.targets)
    _check_classes(dataset, labels, np.array(test.targets))
    rows, held_rows = shares(labels, dataset, draw_of(config))
    parts = {
        "train": folders.part(train, rows),
        "test": test,
        "validation": folders.part(train, held_rows),
    }
    data = DiskData(dataset, parts, device)
    size = (len(train) + len(test)) * dataset.channels * dataset.image_size**2
    if dataset.name == "imagenet" or size > MOST_BYTES:
        return data
    decoded = {name: data.decoded(name) for name, images in parts.items() if len(images)}
    return TensorData(dataset, decoded, device)


def shares(
    labels: np.ndarray, dataset: DatasetConfig, draw: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on, and of those held out; both are stratified."""
    advice = f"{dataset.name} has {len(labels)}"
    require(dataset.samples <= len(labels), "dataset.samples", dataset.samples, advice)
    rows = subset(labels, dataset.samples, draw)
    held_rows = subset(labels[rows], held_out(dataset), draw)
    return np.delete(rows, held_rows), rows[held_rows]


def _check_classes(dataset: DatasetConfig, *labels: np.ndarray) -> None:
    classes = max(int(part.max()) for part in labels) + 1
    advice = f"the files hold {classes}"
    require(dataset.classes == classes, "dataset.classes", dataset.classes, advice)
