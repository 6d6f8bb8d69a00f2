"""`python -m lab.noise study=lemma dataset=digits`: one study of the noise, into results/noise."""

from __future__ import annotations

from pathlib import Path

from igo.config.cli import hydra_program
from lab.noise.program import run

SETTINGS = Path(__file__).parent / "noise.yaml"


def main() -> None:
    """Run the command line through Hydra."""
    hydra_program(run, SETTINGS)


if __name__ == "__main__":
    main()
