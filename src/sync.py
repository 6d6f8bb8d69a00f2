"""Send offline runs to W&B. `python src/sync.py --help` explains its settings."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.config.cli import hydra_program


def sync(composed: DictConfig, _typed: list[str]) -> None:
    """Send what the server has not got yet."""
    from igo.runs import sync as program

    program.run(composed)


if __name__ == "__main__":
    hydra_program(sync, config_name="sync")
