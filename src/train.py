"""Train one run, or a sweep with -m. `python src/train.py --help` explains every setting."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.config.cli import hydra_program


def train(config: DictConfig, typed: list[str]) -> float | None:
    """Check the configuration, then run it; return the final validation accuracy, for a search."""
    from igo.config.load import load  # --help and --cfg answer without these imports
    from igo.runs.rerun import continued

    if config.run is None:
        checked = load(config, typed)
    else:
        checked = continued(config.run, config, [name for name in typed if name != "run"])
    from igo.runs.folder import last_record
    from igo.runs.session import run

    return last_record(run(checked)).get("validation/accuracy")


if __name__ == "__main__":
    hydra_program(train, config_name="config")
