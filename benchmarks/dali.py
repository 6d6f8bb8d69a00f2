"""NVIDIA DALI's loader on a CPU, for benchmarks.images: a program for an environment that has it.

PYTHON benchmarks/dali.py FOLDER BATCH WORKERS SIZE; for each line of its input it loads an epoch
and prints the number of images.
"""

from __future__ import annotations

import sys
from typing import Any

from nvidia.dali import fn, pipeline_def, types

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def main(folder: str, batch: int, workers: int, size: int) -> None:
    @pipeline_def(batch_size=batch, num_threads=workers, device_id=None)
    def pipeline() -> Any:
        files, labels = fn.readers.file(file_root=folder, random_shuffle=True, name="files")
        images = fn.decoders.image_random_crop(files, device="cpu", output_type=types.RGB)
        images = fn.resize(images, size=(size, size))
        mirror = fn.random.coin_flip()
        images = fn.crop_mirror_normalize(
            images, mirror=mirror, mean=MEAN, std=STD, dtype=types.FLOAT
        )
        return images, labels

    loader = pipeline()
    loader.build()
    batches = loader.epoch_size("files") // batch
    for _ in sys.stdin:
        print(sum(len(loader.run()[0]) for _ in range(batches)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
