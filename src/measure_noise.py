"""Measure the noise of a run or of a fresh model. `python src/measure_noise.py --help`."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.config.cli import hydra_program


def measure(composed: DictConfig, typed: list[str]) -> None:
    """Check the configuration, then measure."""
    from igo.analysis import measure_noise

    measure_noise.run(composed, typed)


if __name__ == "__main__":
    hydra_program(measure, config_name="measure_noise")
