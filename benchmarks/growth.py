"""Time and peak memory as the work grows: batch size, stages, epochs, width of the model."""

from __future__ import annotations

from benchmarks import programs
from benchmarks.ratios import Row, Spread

BASE = {
    "dataset": "fashion_mnist", "dataset.samples": 10_000, "epochs": 3, "batch_size": 64,
    "schedule": "constant", "schedule.stages": 1, "model.width": 16,
    "tracking": "none",
}  # fmt: skip
DIGITS: dict[str, object] = {"dataset": "digits"}  # many epochs: a test set of 360, not 10,000
LADDERS: dict[str, list[dict[str, object]]] = {
    "b": [{"batch_size": b, "epochs": 2} for b in (16, 64, 256, 1024, 4096, 10_000)],
    "M": [{**DIGITS, "schedule.stages": m, "schedule": "graduated", "split": 1, "epochs": 200,
           "dataset.samples": 320} for m in (1, 5, 20, 100, 200)],
    "epochs": [{**DIGITS, "epochs": e, "dataset.samples": 1280} for e in (1, 4, 16, 64)],
    "width": [{"model.width": w, "dataset.samples": 2_000, "epochs": 2}
              for w in (4, 8, 16, 32, 64)],
}  # fmt: skip
VARIED = {"b": "batch_size", "M": "schedule.stages", "epochs": "epochs", "width": "model.width"}


def measure(quick: bool) -> list[Row]:
    """A row for each run; quick: the ends of each ladder."""
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
    return rows
