"""How a sweep stands. `python src/sweep_status.py --help` explains every setting."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.config.cli import hydra_program


def main(config: DictConfig, _typed: list[str]) -> None:
    """Show it."""
    from igo.config.load import split_off
    from igo.sweep.status import StatusSettings, report

    settings, _ = split_off(config, StatusSettings)
    report(settings)


if __name__ == "__main__":
    hydra_program(main, config_name="sweep_status")
