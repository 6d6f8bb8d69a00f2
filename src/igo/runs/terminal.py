"""What a person sees: the plan as a table, a bar while it runs, plain lines without a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from igo.config.schema import Config
from igo.files import Record
from igo.method.plan import Plan, Stage
from igo.runs.folder import describe

if TYPE_CHECKING:  # control needs torch, which a dry run does without
    from igo.train.control import Applied

MOST_ROWS = 24  # of the plan; a longer one shows its beginning and its end


class Terminal:
    """Output of one run; ``quiet`` for a process that is not the one to speak."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(highlight=False, soft_wrap=True, quiet=quiet)

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Print a warning to stderr."""
        if self._console.quiet:
            return
        self._console.file.flush()
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def show_plan(self, config: Config, plan: Plan) -> None:
        """Print the schedule and its stages."""
        self.say(
            f"{config.schedule.profile} noise, split {config.split:.5g}, on {config.dataset.name}"
            f" (n = {plan.n:,}) with {config.model.name} and {config.optimizer.name}:"
            f" {plan.epochs} epochs, {plan.updates:,} updates"
        )
        titles = [
            "stage", "epochs", "updates", "batches", "δ_m/δ_1", "γ_m", "κ_m", "λ_m", "η_m", "b_m",
        ]  # fmt: skip
        if not self._console.is_terminal:
            self._plain_plan(titles, plan)
            return
        table = Table(*titles, header_style="bold")
        for column in table.columns:
            column.justify = "right"
        for row in _rows(plan):
            table.add_row(*row)
        self._console.print(table)

    def _plain_plan(self, titles: list[str], plan: Plan) -> None:
        rows = [titles, *_rows(plan)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(titles))]
        for row in rows:
            self.say("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))

    @contextmanager
    def progress(self, plan: Plan, updates_done: int) -> Iterator[ProgressBar]:
        """A bar over all updates of the run."""
        bar = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with bar:
            yield ProgressBar(
                self, bar, bar.add_task("", total=plan.updates, completed=updates_done)
            )


class ProgressBar:
    """The bar of a run; reads nothing from the device."""

    def __init__(self, terminal: Terminal, bar: Progress, task: TaskID) -> None:
        self._terminal, self._bar, self._task = terminal, bar, task
        self._last, self._where, self._start, self._images = "", "", time.perf_counter(), 0

    def begin_epoch(self, epoch: int, applied: Applied) -> None:
        """Say where the run is."""
        eta, b = applied.learning_rate, applied.batch_size
        self._where = f"epoch {epoch}  δ {applied.delta:.4g}  η {eta:.4g}  b {b:.4g}"
        self._start, self._images = time.perf_counter(), 0

    def advance(self, images: int) -> None:
        """Count one update on so many images."""
        self._images += images
        rate = self._images / max(time.perf_counter() - self._start, 1e-9)
        text = f"{self._where}  {rate:,.0f} images/s{self._last}"
        self._bar.update(self._task, advance=1, description=text)

    def end_epoch(self, record: Record) -> None:
        """Show the epoch's losses and accuracies: in the bar, or as a line where there is none."""
        self._last = f"  loss {record['train/loss']:.4f}  test {record['test/accuracy']:.2%}"
        if "validation/accuracy" in record:
            self._last += f"  validation {record['validation/accuracy']:.2%}"
        if self._bar.disable:
            self._terminal.say(describe(record))


def _rows(plan: Plan) -> list[list[str]]:
    stages: list[Stage | None] = list(plan.stages)
    if len(stages) > MOST_ROWS:
        half = MOST_ROWS // 2
        stages = [*stages[:half], None, *stages[-half:]]
    return [["…"] * 10 if stage is None else _row(stage) for stage in stages]


def _row(stage: Stage) -> list[str]:
    last = stage.first_epoch + stage.epochs - 1
    span = str(last) if stage.epochs == 1 else f"{stage.first_epoch}-{last}"
    rates = [
        "" if r is None else f"{r:.4f}" for r in (stage.gamma_m, stage.kappa_m, stage.lambda_m)
    ]
    return [
        str(stage.stage), span, f"{stage.updates:,}", f"{stage.batches:,}", f"{stage.phi_m:.4f}",
        *rates, f"{stage.eta_m:.5g}", f"{stage.b_m:,.1f}",
    ]  # fmt: skip
