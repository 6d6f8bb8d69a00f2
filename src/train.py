"""Train one run, or a sweep with -m. `python src/train.py --help` explains every setting."""

from __future__ import annotations

from omegaconf import DictConfig

from igo.cli import hydra_program


def train(config: DictConfig, typed: list[str]) -> float | None:
    """Check the configuration, then run it; return the final test accuracy, for a search."""
    from igo.load import load  # --help and --cfg answer without these imports

    checked = load(config, typed)
    from igo.record import read_records
    from igo.run import run

    records = read_records(run(checked))
    return records[-1]["test/accuracy"] if records else None


if __name__ == "__main__":
    hydra_program(train, config_name="config")
