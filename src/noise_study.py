"""Study the noise of SGD. `python src/noise_study.py --help` explains every setting."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.config.cli import hydra_program


def study(composed: DictConfig, typed: list[str]) -> None:
    """Check the configuration, then do the study."""
    from igo.analysis.noise_study import program  # --help and --cfg answer without these imports

    program.run(composed, typed)


if __name__ == "__main__":
    hydra_program(study, config_name="noise_study")
