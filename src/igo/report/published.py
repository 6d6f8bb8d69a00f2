"""The published curves in results/published, and the settings that they are compared with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import polars as pl

from igo.report.results import Row

FILE = Path(__file__).with_name("published.csv")  # results/published/resnet18_cifar100.csv
SOURCE = "Sato and Iiduka, arXiv 2311.08745: ResNet18, CIFAR-100, means of three runs"
# The published setting; its batch size is not published.
SETTING = {
    "dataset.name": "cifar100", "model.name": "resnet18", "optimizer.name": "sgd",
    "learning_rate": 0.1, "epochs": 200,
}  # fmt: skip


@cache
def curves() -> pl.DataFrame:
    """A row an epoch (from 1) of a schedule; null where nothing is published."""
    schema = {"schedule": pl.String, "epoch": pl.Int64, "test_accuracy_percent": pl.Float64,
              "train_loss": pl.Float64}  # fmt: skip
    return pl.read_csv(FILE, schema=schema)


def name_of(row: Row) -> str | None:
    """The name of the published schedule that a setting has; None for no published schedule.

    The rate of the exponential and the meaning of "linear C" are not published, so no setting has
    these two.
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
