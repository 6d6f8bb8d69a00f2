"""Opens the data set of a run, and holds images out for validation.

A new data set that fits in memory takes one function in READERS and one file in conf/dataset/.
"""

import numpy as np
import torch

from igo.config.schema import Config, DatasetConfig, draw_of, held_out, place_of
from igo.data.identity import class_count, read
from igo.data.readers import Split, subset
from igo.ground.errors import require
from igo.train.on_device import Data, TensorData

MOST_BYTES = 2 * 2**30  # Decoded images of more bytes are not kept on the device.


def open_data(config: Config, device: torch.device) -> Data:
    """The configured data set: its training, test and validation images, as batches on a device.

    Images in folders are kept on the device if they are few, else decoded in each pass.
    """
    dataset = config.dataset
    train, test = read(dataset.name, place_of(config))
    classes = class_count(train, test)
    advice = f"the files hold {classes}"
    require(dataset.classes == classes, "dataset.classes", dataset.classes, advice)
    rows, held_rows = shares(train.labels, dataset, draw_of(config))
    parts = {"train": train.of(rows), "test": test, "validation": train.of(held_rows)}
    side = dataset.image_size
    if isinstance(train, Split):
        shape = train.images.shape[1:]  # The reader has refused test images of another shape.
        advice = f"the files hold images of shape {shape}: height, width, channels"
        require(shape == (side, side, dataset.channels), "dataset.image_size", side, advice)
        return TensorData(dataset, parts, device)
    from igo.train.on_disk import DiskData  # Its import changes how PyTorch handles signals.

    data = DiskData(dataset, parts, device)
    size = (len(train) + len(test)) * dataset.channels * side**2
    if dataset.name == "imagenet" or size > MOST_BYTES:
        return data
    decoded = {name: data.decoded(name) for name, images in parts.items() if len(images)}
    return TensorData(dataset, decoded, device)


def shares(
    labels: np.ndarray, dataset: DatasetConfig, draw: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on, and of those held out for validation; both are stratified.

    First the images in use are chosen among all, then those held out among the images in use.
    ``draw`` is the seed that chooses both.
    """
    advice = f"{dataset.name} has {len(labels)}"
    require(dataset.samples <= len(labels), "dataset.samples", dataset.samples, advice)
    rows = subset(labels, dataset.samples, draw)
    held_places = subset(labels[rows], held_out(dataset), draw)  # They are places in ``rows``.
    return np.delete(rows, held_places), rows[held_places]
