"""Train one run, or a sweep with -m. `python src/train.py --help` explains every setting."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.cli import hydra_program


def train(config: DictConfig, typed: list[str]) -> None:
    """Check the configuration, then run it."""
    from igo.load import load  # --help and --cfg answer without these imports

    checked = load(config, typed)
    from igo.run import run

    run(checked)


if __name__ == "__main__":
    hydra_program(train, config_name="config")
