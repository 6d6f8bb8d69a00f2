"""Train one run, or a sweep with -m. `python src/train.py --help` explains every setting."""

from igo.__main__ import train
from igo.config.cli import hydra_program
from igo.ground.files import CONF

if __name__ == "__main__":
    hydra_program(train, CONF / "config.yaml")
