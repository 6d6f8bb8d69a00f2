"""Growing batches and photographs: images a second beside what bare updates predict."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from benchmarks.gpu.part import Part, Result, configured, prepared, waits
from benchmarks.gpu.speed import BESIDE_BARE, bare_update, epochs
from benchmarks.worker import synchronise
from igo.config.schema import Config
from igo.ground.ranks import allowed_cores
from igo.train.on_disk import MOST_WORKERS
from igo.train.record import Training

EPOCHS = 8  # Each is a stage.
REPEATS = 10  # A prediction takes so many bare updates.
SIDES = (500, 375)  # pixels of a photograph, as of ImageNet's on average
PHOTOGRAPHS = 4000
MOST_WAITS = 12  # of an epoch: the images' order and moves are copied, sums and C² are read
MOST_RESERVED = 1.25  # times what is allocated: a growing b must not leave unused blocks


def items(part: Part, folder: Path) -> None:
    """A batch that grows to many sizes, and to powers of 2; then images that stay on disk."""
    for ratio in (1, 2):
        name = f"growing b, batch_ratio={ratio}"
        part.item(name, lambda ratio=ratio: growing(part, folder, ratio), seconds=30)
    part.item("ImageNet-like images", lambda: photographs(part, folder), seconds=60)


def growing(part: Part, folder: Path, ratio: int) -> Result:
    """A graduated plan whose noise falls by the batch alone; bare updates of each size predict."""
    settings = ("model=resnet18", "schedule=graduated", "split=0", f"schedule.batch_ratio={ratio}")
    stages = (f"schedule.stages={EPOCHS}", f"epochs={EPOCHS}", "batch_size=32", "noise.batches=2")
    config = configured(part, folder, *settings, *stages)
    training = prepared(config)
    rows = training.plan.rows[1:]  # The first epoch is the warm-up.
    seconds_by_size = {b: bare_seconds(training, b) for b in {round(row.b_m) for row in rows}}
    seconds = sum(row.updates * seconds_by_size[round(row.b_m)] for row in rows)
    predicted = sum(row.samples for row in rows) / seconds
    return {"sizes": len(seconds_by_size), **beside(part, config, predicted)}


def photographs(part: Part, folder: Path) -> Result:
    """JPEG files as ImageNet's; the slower of its workers and of bare updates predicts."""
    count, b = (48, 8) if part.dry else (PHOTOGRAPHS, 128)
    files = write_photographs(folder / "imagenet", count)
    crop = v2.RandomResizedCrop(224, antialias=True)
    start = time.perf_counter()
    for file in files[:100]:
        crop(Image.open(file).convert("RGB"))
    decoding = (time.perf_counter() - start) / len(files[:100])
    size = ("dataset.classes=10", f"dataset.samples={count}", f"batch_size={b}", "epochs=3")
    model = () if part.dry else ("model=resnet18", "model.stem=imagenet")
    plan = ("schedule=constant", "noise.batches=2")
    config = configured(part, folder, "dataset=imagenet", *size, *model, *plan)
    readers = min(allowed_cores(), MOST_WORKERS) / decoding
    computing = b / bare_seconds(prepared(config), b)
    limits = {"readers images/s": readers, "updates images/s": computing}
    return {**limits, **beside(part, config, min(readers, computing))}


def bare_seconds(training: Training, b: int) -> float:
    """Seconds of a bare update of b images."""
    update = bare_update(training, size=b)
    update()
    synchronise()
    start = time.perf_counter()
    for _ in range(REPEATS):
        update()
    synchronise()
    return (time.perf_counter() - start) / REPEATS


def beside(part: Part, config: Config, predicted: float) -> Result:
    """Images a second of all epochs but the first, with waits and memory."""
    training, images = prepared(config), 0
    if not part.dry:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with closing(epochs(training)) as made_epochs:
        next(made_epochs)
        synchronise()
        start = time.perf_counter()
        with waits(part) as places:
            for epoch in made_epochs:
                images += epoch.samples
        synchronise()
        rate = images / (time.perf_counter() - start)
    result: Result = {"images/s": rate, "predicted": predicted, "waits": len(places)}
    if part.dry:
        return result
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    settings = torch.cuda.memory._snapshot()["allocator_settings"]
    return {
        "ok": rate >= BESIDE_BARE * predicted
        and reserved <= MOST_RESERVED * allocated
        and len(places) <= MOST_WAITS * training.plan.epochs,
        **result,
        "where": sorted({*places}),
        "allocated MiB": allocated / 2**20,
        "reserved MiB": reserved / 2**20,
        "expandable segments": settings["expandable_segments"],
    }


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Write files of ten classes, and some more to test on; return those to train on."""
    random, files = np.random.default_rng(0), []
    for number in range(count + max(count // 10, 10)):
        pixels = random.integers(0, 256, (60, 80, 3)).astype(np.uint8)
        part = "train" if number < count else "val"
        file = folder / part / f"class{number % 10}" / f"{number}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize(SIDES, Image.Resampling.BICUBIC).save(file, quality=95)
        files += [file] if part == "train" else []
    return files
