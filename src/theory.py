"""Run the theory laboratory. `python src/theory.py --help` explains its settings."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.config.cli import hydra_program


def theory(composed: DictConfig, _typed: list[str]) -> None:
    """Check the configuration, then run the studies."""
    from igo.theory import laboratory

    laboratory.run(composed)


if __name__ == "__main__":
    hydra_program(theory, config_name="theory")
