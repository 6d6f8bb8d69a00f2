"""The published curves in results/published, beside runs of their setting."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from igo.report.results import Row

FILE = Path(__file__).with_name("published.csv")  # a link to the file in results/published
SOURCE = "Sato and Iiduka, arXiv 2311.08745: ResNet18, CIFAR-100, means of three runs"
# The published setting; its batch size is not published.
SETTING = {
    "dataset.name": "cifar100", "model.name": "resnet18", "optimizer.name": "sgd",
    "learning_rate": 0.1, "epochs": 200, "split": 1,
}  # fmt: skip


def curve(row: Row) -> pl.DataFrame | None:
    """Epoch, test/accuracy_mean and train/loss_mean as published for a setting; None if not.

    No setting has "exponential" or "linear C": the rate of the first and the meaning of the second
    are not published.
    """
    profile = row["schedule.profile"]
    is_published = all(row[name] == value for name, value in SETTING.items())
    if not is_published or profile not in ("graduated", "polynomial", "cosine"):
        return None
    name = "cosine" if profile == "cosine" else f"p={row['p']:g}"
    rows = pl.read_csv(FILE, infer_schema_length=None).filter(schedule=name)
    if rows.is_empty():
        return None
    return rows.select(
        "epoch",
        (pl.col("test_accuracy_percent") / 100).alias("test/accuracy_mean"),
        pl.col("train_loss").alias("train/loss_mean"),
    )
