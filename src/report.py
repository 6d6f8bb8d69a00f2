"""Write the report of many runs: figures and a page. `python src/report.py --help` explains it."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.config.cli import hydra_program


def report(composed: DictConfig, _typed: list[str]) -> None:
    """Read the runs, then write their report."""
    from igo.analysis.report import program

    program.run(composed)


if __name__ == "__main__":
    hydra_program(report, config_name="report")
