"""`python -m lab.noise dataset=digits`: Lemma 2.1 on a network, into results/noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from omegaconf import DictConfig

from igo.config.cli import hydra_program
from igo.config.load import load, split_off
from igo.ground.numbers import at_least
from igo.runs.terminal import Terminal

SETTINGS = Path(__file__).parent / "noise.yaml"


@dataclass
class Study:
    """The settings of `python -m lab.noise` itself, without a run's; see noise.yaml."""

    output: str = "results/noise"
    draws: Annotated[int, at_least(100)] = 1000


def run(composed: DictConfig, typed_names: list[str]) -> None:
    """Run the study; write a CSV of each of its tables, numbers with eight digits, and its figure.

    Raises:
        UserError: a setting is invalid.
    """
    study, rest = split_off(composed, Study)
    config = load(rest, typed_names)
    import polars as pl  # it, torch, scipy and matplotlib take a second

    from lab.noise.figure import draw
    from lab.noise.lemma import lemma

    n, tables = lemma(config, study.draws)
    folder = Path(study.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        table = pl.DataFrame(rows).with_columns(pl.col(pl.Float64).round_sig_figs(8))
        table.write_csv(folder / f"{name}_{config.dataset.name}.csv")
    picture = folder / f"lemma_{config.dataset.name}.png"
    draw(n, tables, config.dataset.name, picture)
    Terminal().say(f"wrote {picture}, and its tables beside it")


def main() -> None:
    """Run the command line through Hydra."""
    hydra_program(run, SETTINGS)


if __name__ == "__main__":
    main()
