"""`python -m lab.exponent question=stationary seeds=20`: predicted and measured ρ of networks."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from igo.config.cli import hydra_program

SETTINGS = Path(__file__).parent / "exponent.yaml"


def run(composed: DictConfig, _typed: list[str]) -> None:
    """Run the question. Its libraries are imported here, so that --help answers at once."""
    from lab.exponent import program

    program.run(composed)


def main() -> None:
    """Run the command line through Hydra."""
    hydra_program(run, SETTINGS)


if __name__ == "__main__":
    main()
