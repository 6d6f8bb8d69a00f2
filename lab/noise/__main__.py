"""`python -m lab.noise study=lemma dataset=digits`: one study of the noise, into results/noise."""

from __future__ import annotations

import csv
from pathlib import Path

from omegaconf import DictConfig

from igo.config.cli import hydra_program
from igo.config.load import load, split_off
from igo.config.schema import Config
from igo.runs.terminal import Terminal
from lab.noise import Study

SETTINGS = Path(__file__).parent / "noise.yaml"


def run(composed: DictConfig, typed: list[str]) -> None:
    """Run a study; write a CSV of each of its tables, numbers with eight digits, and its figure.

    Raises:
        UserError: the study is unknown, or a setting is invalid.
    """
    study, config = settings(composed, typed)
    from lab.noise import figures, lemma, omega  # torch, scipy and matplotlib

    findings = {"lemma": lemma.lemma, "omega": omega.omega}[study.study](study, config)
    folder = Path(study.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in findings.tables.items():
        with (folder / f"{name}_{config.dataset.name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            for row in rows:
                short = {k: f"{v:.8g}" if isinstance(v, float) else v for k, v in row.items()}
                writer.writerow(short)
    picture = folder / f"{study.study}_{config.dataset.name}.png"
    getattr(figures, study.study)(findings, config.dataset.name, picture)
    Terminal().say(f"wrote {picture}, and its tables beside it")


def settings(composed: DictConfig, typed: list[str]) -> tuple[Study, Config]:
    """Split the composed settings into those of the study and of a run, both checked."""
    study, rest = split_off(composed, Study)
    return study, load(rest, typed)


def main() -> None:
    """Run the command line through Hydra."""
    hydra_program(run, SETTINGS)


if __name__ == "__main__":
    main()
