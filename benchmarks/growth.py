"""Time and peak memory as the work grows: batch size, stages, epochs, width of the model."""

from __future__ import annotations

import tempfile
import time

from benchmarks import programs
from benchmarks.cells import configure
from benchmarks.ratios import Row, Spread
from igo.config.plan import make_plan
from igo.runs import assemble, recorded
from igo.runs.folder import RunFolder
from igo.train.state import Progress

BASE = {
    "dataset": "fashion_mnist", "dataset.samples": 10_000, "epochs": 3, "batch_size": 64,
    "schedule": "constant", "schedule.stages": 1, "model.width": 16,
    "tracking": "none",
}  # fmt: skip
# for many epochs: its test set has 360 images, not 10,000
DIGITS: dict[str, object] = {"dataset": "digits"}
LADDERS: dict[str, list[dict[str, object]]] = {
    "b": [{"batch_size": b, "epochs": 2} for b in (16, 64, 256, 1024, 4096, 10_000)],
    "M": [{**DIGITS, "schedule.stages": m, "schedule": "graduated", "split": 1, "epochs": 200,
           "dataset.samples": 320} for m in (1, 5, 20, 100, 200)],
    "epochs": [{**DIGITS, "epochs": e, "dataset.samples": 1280} for e in (1, 4, 16, 64)],
    "width": [{"model.width": w, "dataset.samples": 2_000, "epochs": 2}
              for w in (4, 8, 16, 32, 64)],
}  # fmt: skip
RECORD = dict.fromkeys((f"number_{n}" for n in range(24)), 0.123456789012345)
VARIED = {"b": "batch_size", "M": "schedule.stages", "epochs": "epochs", "width": "model.width"}


def measure(quick: bool) -> list[Row]:
    """A row for each run; ``quick`` has only the ends of each ladder."""
    rows: list[Row] = []
    for name, ladder in LADDERS.items():
        for changes in (ladder[0], ladder[-1]) if quick else ladder:
            settings = {**BASE, **changes}
            usage, records = programs.run(*(f"{key}={value}" for key, value in settings.items()))
            rates = [record["images_per_second"] for record in records]
            training = sum(settings["dataset.samples"] / rate for rate in rates)  # type: ignore[operator]
            epochs = sum(record["seconds"] for record in records)
            images = records[-1]["samples"]
            rows.append(
                {
                    "varied": name,
                    "value": settings[VARIED[name]],
                    "microseconds_per_image": 1e6 / Spread.of(rates).median,
                    "apart_microseconds_per_image": 1e6 * (epochs - training) / images,
                    "seconds": usage.seconds,
                    "start_and_end_seconds": usage.seconds - epochs,
                    "peak_megabytes": usage.peak_bytes / 2**20,
                }
            )
    return rows + epoch_ends(*((20, 200) if quick else (100, 3_000)))


def epoch_ends(early: int, late: int) -> list[Row]:
    """The cost of an epoch's end, early and late in a run: its record and its checkpoint.

    There is no training and no evaluation, as their seconds would hide it. Each cost is the median
    of the last 50 epochs.
    """
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        config = configure(
            "model.width=4", "tracking=none", "dataset.samples=96", f"runs_dir={place}",
            f"epochs={late}",
        )  # fmt: skip
        training = assemble.prepare(config, make_plan(config))
        folder, progress = RunFolder(config), Progress()
        with folder.held():
            folder.write_plan(training.plan)
            folder.records.begin([])
            folder.begin_status(state="running")
            for epoch in range(1, late + 1):
                progress.epoch = epoch
                progress.records.append(RECORD | {"epoch": epoch})
                began = time.thread_time()  # without the disk and other programs
                state = assemble.state_of(folder.path.name, None, training, progress)
                recorded.write_epoch(folder, progress.records[-1], state, {})
                seconds.append(time.thread_time() - began)
    ends = {epoch: Spread.of(seconds[max(epoch - 50, 0) : epoch]).median for epoch in (early, late)}
    print(f"the end of epoch {late} took {ends[late] / ends[early]:.2f} times that of {early}")
    return [
        {"varied": "end of epoch", "value": epoch, "cpu_milliseconds": 1e3 * seconds}
        for epoch, seconds in ends.items()
    ]
