"""Train one run, or a sweep with -m. `python src/train.py --help` explains every setting."""

from igo.__main__ import start_program

if __name__ == "__main__":
    start_program("config")
