"""The published curves in results/published, and which settings they may be laid beside."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import polars as pl

from igo.analysis.report.results import Row

FILE = Path(__file__).with_name("published.csv")  # results/published/resnet18_cifar100.csv
SOURCE = "Sato and Iiduka, arXiv 2311.08745: ResNet18, CIFAR-100, means of three runs"
# What is published of the setting; the batch size is not.
SETTING = {
    "dataset.name": "cifar100", "model.name": "resnet18", "optimizer.name": "sgd",
    "learning_rate": 0.1, "epochs": 200,
}  # fmt: skip


@cache
def curves() -> pl.DataFrame:
    """``schedule``, ``epoch`` from 1, ``test_accuracy_percent``, ``train_loss``.

    Null where nothing is published.
    """
    schema = {"schedule": pl.String, "epoch": pl.Int64, "test_accuracy_percent": pl.Float64,
              "train_loss": pl.Float64}  # fmt: skip
    return pl.read_csv(FILE, schema=schema)


def name_of(row: Row) -> str | None:
    """The published schedule that a setting's is; None for none.

    The exponential's rate and the meaning of "linear C" are not published: nothing is compared with
    those.
    """
    profile = row["schedule.profile"]
    if row["split"] != 1 or profile not in ("graduated", "polynomial", "cosine"):
        return None
    name = "cosine" if profile == "cosine" else f"p={row['p']:g}"
    return name if name in curves()["schedule"] else None


def same_setting(row: Row) -> bool:
    """Whether a setting is the published one, as far as it is published."""
    return all(row[name] == value for name, value in SETTING.items())


def of(name: str) -> pl.DataFrame:
    """One schedule's published curves."""
    return curves().filter(schedule=name)


def last_accuracy(name: str) -> float:
    """Published test accuracy of the last epoch, in per cent."""
    return float(of(name).sort("epoch")["test_accuracy_percent"][-1])
