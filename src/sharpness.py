"""Measure how sharp the loss is at finished runs. `python src/sharpness.py --help`."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.config.cli import hydra_program


def sharpness(composed: DictConfig, _typed: list[str]) -> None:
    """Check the settings, then measure each run that has not been measured so."""
    from igo.analysis.sharpness import program

    program.run(composed)


if __name__ == "__main__":
    hydra_program(sharpness, config_name="sharpness")
