"""`python -m lab.theory study=nice`: figures and tables of the theory into results/theory."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from igo.config.cli import hydra_program

SETTINGS = Path(__file__).parent / "theory.yaml"


def run(composed: DictConfig, _typed: list[str]) -> None:
    """Run the chosen studies. Their libraries are imported here, so that --help answers at once."""
    from lab.theory import laboratory

    laboratory.run(composed)


def main() -> None:
    """Run the command line through Hydra."""
    hydra_program(run, SETTINGS)


if __name__ == "__main__":
    main()
