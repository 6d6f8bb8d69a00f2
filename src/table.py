"""Gather many runs into one table. `python src/table.py --help` explains its settings."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.config.cli import hydra_program


def table(composed: DictConfig, _typed: list[str]) -> None:
    """Read the runs, then write and print their table."""
    from igo.analysis.table import program

    program.run(composed)


if __name__ == "__main__":
    hydra_program(table, config_name="table")
