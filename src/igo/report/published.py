"""The published curves in results/published, and the settings that they are compared with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import polars as pl

from igo.report.results import Row

FILE = Path(__file__).with_name("published.csv")  # a link to the file in results/published
SOURCE = "Sato and Iiduka, arXiv 2311.08745: ResNet18, CIFAR-100, means of three runs"
# The published setting; its batch size is not published.
SETTING = {
    "dataset.name": "cifar100", "model.name": "resnet18", "optimizer.name": "sgd",
    "learning_rate": 0.1, "epochs": 200,
}  # fmt: skip


@cache
def curves() -> pl.DataFrame:
    """A row for each epoch (from 1) of each schedule; null where nothing is published."""
    schema = {"schedule": pl.String, "epoch": pl.Int64, "test_accuracy_percent": pl.Float64,
              "train_loss": pl.Float64}  # fmt: skip
    return pl.read_csv(FILE, schema=schema)


def name_of(row: Row) -> str | None:
    """The name of a setting's published schedule; None if its schedule is not published.

    No setting has "exponential" or "linear C": the rate of the first and the meaning of the second
    are not published.
    """
    profile = row["schedule.profile"]
    if row["split"] != 1 or profile not in ("graduated", "polynomial", "cosine"):
        return None
    name = "cosine" if profile == "cosine" else f"p={row['p']:g}"
    return name if name in curves()["schedule"] else None


def curves_of(name: str) -> pl.DataFrame:
    """The published curves of one schedule."""
    return curves().filter(schedule=name)


def last_accuracy(name: str) -> float:
    """The published test accuracy of the last epoch, in per cent."""
    return float(curves_of(name).sort("epoch")["test_accuracy_percent"][-1])
