"""The program: run a study by its settings, and write its tables and its figure."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from omegaconf import DictConfig

from igo.config.load import load, split_off
from igo.config.schema import Config
from igo.ground.files import write_atomically
from igo.runs.terminal import Terminal
from lab.noise import Findings, Row, Study


def run(composed: DictConfig, typed: list[str]) -> None:
    """Check the settings, run the study, write its results.

    Raises:
        UserError: the study is unknown, or a setting is invalid.
    """
    study, config = settings(composed, typed)
    from lab.noise import lemma, omega  # torch and scipy

    studies = {"lemma": lemma.lemma, "omega": omega.omega}
    write(study, config.dataset.name, studies[study.study](study, config))


def settings(composed: DictConfig, typed: list[str]) -> tuple[Study, Config]:
    """Split the composed settings into those of the study and of a run, both checked."""
    study, rest = split_off(composed, Study)
    return study, load(rest, typed)


def write(study: Study, dataset: str, findings: Findings) -> None:
    """Write a CSV for each table, and the figure."""
    from lab.noise import figures

    folder = Path(study.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in findings.tables.items():
        write_atomically(folder / f"{name}_{dataset}.csv", csv_text(rows))
    picture = folder / f"{study.study}_{dataset}.png"
    getattr(figures, study.study)(findings, dataset, picture)
    Terminal().say(f"wrote {picture}, and its tables beside it")


def csv_text(rows: list[Row]) -> str:
    """Rows as CSV, numbers with eight digits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.8g}" if isinstance(v, float) else v for k, v in row.items()})
    return out.getvalue()
