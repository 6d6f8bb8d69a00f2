"""Draw docs/terminal-80.svg and docs/terminal-140.svg: a run in terminals of two widths, amid it.

python docs/terminal.py
"""

from __future__ import annotations

import argparse
import io
import os
import re
import tempfile
from pathlib import Path
from unittest import mock

from hydra import compose, initialize_config_dir
from rich.console import Console

from igo.config.load import load
from igo.ground.files import Record, write_atomically
from igo.ground.paths import CONF
from igo.runs.session import run
from igo.runs.terminal import ProgressBar, Terminal

WIDTHS = (80, 140)
TYPED = ["schedule=graduated", "p=0.5", "split=0", "epochs=10"]
SHOWN = 6  # epochs, after which the picture is taken and the run stopped
HERE = Path(__file__).parent
REMOTE_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)  # a picture that fetches nothing


class Taken(Exception):
    """The picture is."""


class Photographed(ProgressBar):
    """A bar that is printed once, below its lines, and ends the run."""

    def end_epoch(self, record: Record) -> None:
        """Take the picture after the epoch SHOWN."""
        super().end_epoch(record)
        if record["epoch"] == SHOWN:
            self._bar.console.print(self._bar.get_renderable())
            raise Taken


def picture(width: int) -> str:
    """The run as SVG."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, force_interactive=False,
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = load(compose("config", [*TYPED, "tracking=none"]))
    with tempfile.TemporaryDirectory() as place:
        before = Path.cwd()
        os.chdir(place)
        try:
            with mock.patch("igo.runs.terminal.ProgressBar", Photographed):
                run(config, Terminal(console=console))
        except Taken:
            pass
        finally:
            os.chdir(before)
    title = f"python src/train.py {' '.join(TYPED)}"
    drawing = console.export_svg(title=title, unique_id=f"terminal-{width}")
    return REMOTE_FONT.sub("", drawing).replace("Fira Code", "ui-monospace")


def main() -> None:
    """Draw both."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for width in WIDTHS:
        write_atomically(HERE / f"terminal-{width}.svg", picture(width))


if __name__ == "__main__":
    main()
