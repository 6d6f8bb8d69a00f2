"""`python -m lab.noise dataset=digits`: Lemma 2.1 on a network, into results/noise."""

from pathlib import Path

from omegaconf import DictConfig

from igo.config.cli import hydra_program
from igo.config.load import config_of
from igo.runs.terminal import Terminal

SETTINGS = Path(__file__).parent / "noise.yaml"
RESULTS = Path(__file__).parents[2] / "results" / "noise"


def run(composed: DictConfig, typed_names: list[str]) -> None:
    """Run the study; write a CSV of each of its tables, numbers with eight digits, and its figure.

    Raises:
        UserError: a setting is invalid.
    """
    config = config_of(composed, typed_names)
    import polars as pl  # This import and the next ones take a second, which --help does not wait.

    from lab.noise.figure import draw
    from lab.noise.lemma import lemma

    tables = lemma(config)
    for name, rows in tables.items():
        table = pl.DataFrame(rows).with_columns(pl.col(pl.Float64).round_sig_figs(8))
        table.write_csv(RESULTS / f"{name}_{config.dataset.name}.csv")
    picture = RESULTS / f"lemma_{config.dataset.name}.png"
    draw(tables, config.dataset.name, picture)
    Terminal().say(f"wrote {picture}, and its tables beside it")


def main() -> None:
    """Run the command line through Hydra."""
    hydra_program(run, SETTINGS)


if __name__ == "__main__":
    main()
