"""The files of a study: a CSV for each table, a figure, and its chapter of README.md."""

from __future__ import annotations

import csv
import io
import platform
import re
import shlex
import sys
from pathlib import Path

import torch

from igo.config.schema import Config, training_samples
from igo.ground.files import write_atomically
from igo.train import engine
from lab.noise import Findings, Row, Study, figures, text

TITLE = """# The noise of SGD, measured

Every number, table and figure here is written by `python -m lab.noise` (`make noise` runs all
of it); the command is at the head of each chapter. Values in brackets are 95 % intervals.
"""
ORDER = ("Lemma 2.1", "The noise ω", "Feedback", "What measuring")


def write(study: Study, config: Config, findings: Findings) -> Path:
    """Write tables, figure and chapter; return the page."""
    folder = Path(study.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in findings.tables.items():
        write_atomically(folder / f"{name}_{config.dataset.name}.csv", csv_text(rows))
    name = f"{study.study}_{config.dataset.name}"
    getattr(figures, study.study)(findings, config.dataset.name, folder / f"{name}.png")
    title, body = getattr(text, study.study)(findings, config.dataset.name)
    tables = ", ".join(f"[{t}_{config.dataset.name}.csv]({t}_{config.dataset.name}.csv)"
                       for t in findings.tables)  # fmt: skip
    chapter = f"## {title}\n\n    {command()}\n\n{described(config)}\n\n{body}\n\n"
    chapter += f"![{title}]({name}.png)\n\nTables: {tables}\n"
    page = folder / "README.md"
    before = page.read_text() if page.exists() else ""
    write_atomically(page, with_chapter(before, chapter))
    return page


def csv_text(rows: list[Row]) -> str:
    """Rows as CSV, numbers with eight digits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.8g}" if isinstance(v, float) else v for k, v in row.items()})
    return out.getvalue()


def with_chapter(page: str, chapter: str) -> str:
    """The page with this chapter; it replaces a chapter of the same title."""
    chapters = {text.splitlines()[0]: text for text in re.split(r"^(?=## )", page, flags=re.M)[1:]}
    chapters[chapter.splitlines()[0]] = chapter

    def place(heading: str) -> tuple[int, str]:
        return next((i for i, o in enumerate(ORDER) if o in heading), len(ORDER)), heading

    ordered = [chapters[heading].rstrip() for heading in sorted(chapters, key=place)]
    return "\n\n".join([TITLE.rstrip(), *ordered]) + "\n"


def command() -> str:
    """The typed command, without the folders that it reads and writes."""
    places = ("output=", "data_dir=", "runs_dir=")
    typed = [word for word in sys.argv[1:] if not word.startswith(places)]
    return shlex.join(["python", "-m", "lab.noise", *typed])


def described(config: Config) -> str:
    """The network, the data and the machine of the study."""
    device = engine.build(config.engine)
    facts = engine.hardware(device)
    where = ", ".join(str(facts[name]) for name in ("gpu", "cpu") if name in facts)
    return (
        f"{config.model.name}"
        + (f" of width {config.model.width}" if config.model.width else "")
        + f" on {config.dataset.name}, n = {training_samples(config):,}, {config.epochs} epochs"
        f" from seed {config.seed}, η_1 = {config.learning_rate:g}, b_1 = {config.batch_size}."
        f" {where}, {torch.get_num_threads()} thread(s), training in {facts['precision']};"
        f" PyTorch {torch.__version__.split('+')[0]}, Python {platform.python_version()}."
    )
