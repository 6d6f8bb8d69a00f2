"""What a run prints: the plan, a line for each epoch, and in a terminal a progress bar."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from igo.config.schema import Config
from igo.ground.errors import UserError
from igo.ground.files import Record
from igo.ground.words import aligned
from igo.method.plan import Plan
from igo.runs import epoch_line, plan_table
from igo.runs.stopping import Stopped

HEADING_EVERY = 20  # epochs, so that a heading is in sight
UNBOUND = 10_000  # characters, more than any table has


class Speech(Console):
    """A console whose reader may end before the run, as with ``| head``."""

    def on_broken_pipe(self) -> NoReturn:
        """Called by Rich. It stops the run silently, as a signal does; the run can be continued.

        Raises:
            Stopped: always.
        """
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for Python's own flush at the exit
        raise Stopped(signal.SIGPIPE)


class Terminal:
    """Output of one run; ``quiet`` for the ranks that print nothing."""

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Speech(highlight=False, soft_wrap=True, quiet=quiet)

    def say(self, text: str, style: str | None = None, wrap: bool = False) -> None:
        """Print a line, above the bar if there is one; with ``wrap`` a terminal breaks the line."""
        unbroken = not (wrap and self._console.is_terminal)
        try:
            self._console.print(text, markup=False, style=style, soft_wrap=unbroken)
        except OSError as error:
            raise UserError(f"the output of a run cannot be written ({error.strerror})") from None

    def warn(self, text: str) -> None:
        """Print a warning to stderr."""
        if self._console.quiet:
            return
        self._console.file.flush()
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def show_plan(self, config: Config, plan: Plan, file: Path | None = None) -> None:
        """Print the plan with its notes. If no ``file`` has all stages, all are printed."""
        self.say(plan_table.title(config, plan), wrap=True)
        most = None if file is None else plan_table.MOST_ROWS
        several = len(plan.joined) > 1
        columns = [c for c in plan_table.columns() if several or c.leaves != 1]
        if self._console.is_terminal:
            shown = self._boxed(columns, plan, most)
        else:
            shown = columns
            titles = [column.title for column in columns]
            for line in aligned([titles, *plan_table.rows(columns, plan, most)]):
                self.say(line)
        if any(column.leaves == 1 for column in shown):
            self.say(plan_table.RATES)
        for note in plan_table.notes(config, plan):
            self.say(note, wrap=True)
        cut = len(shown) < len(columns) or (most is not None and len(plan.joined) > most)
        if file is not None and cut:
            self.say(f"full: {file}")

    def _boxed(
        self, columns: list[plan_table.Column], plan: Plan, most: int | None
    ) -> list[plan_table.Column]:
        """Print as many columns as there is room for; return these columns."""
        for step in range(3):
            shown = [column for column in columns if not 0 < column.leaves <= step]
            table = Table(*(column.title for column in shown), header_style="bold")
            for cells in table.columns:
                cells.justify, cells.no_wrap = "right", True
            for row in plan_table.rows(shown, plan, most):
                table.add_row(*row)
            unbound = self._console.options.update(max_width=UNBOUND)
            if Measurement.get(self._console, unbound, table).maximum <= self._console.width:
                break
        self._console.print(table)
        return shown

    @contextmanager
    def progress(self, plan: Plan, epochs_done: int = 0) -> Iterator[ProgressBar]:
        """A line for each epoch, and in a terminal a bar over all images of the run."""
        with self._progress() as bar:
            task = bar.add_task("", total=plan.n * plan.epochs, completed=plan.n * epochs_done)
            yield ProgressBar(self, bar, task, plan)

    @contextmanager
    def counting(self, text: str, images: int) -> Iterator[Callable[[], None]]:
        """A line, and in a terminal a bar over ``images``. Each call advances it by one."""
        self.say(text)
        with self._progress() as bar:
            task = bar.add_task("", total=images)
            yield partial(bar.advance, task)

    def _progress(self) -> Progress:
        return Progress(
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def columns(self, record: Record) -> list[epoch_line.Column] | None:
        """The columns for epochs like this one; None where there is no terminal."""
        if not self._console.is_terminal:
            return None
        return epoch_line.columns(
            self._console.width,
            momentum=bool(record.get("beta_m")),
            validation="validation/accuracy" in record,
        )


class ProgressBar:
    """The bar of a run. It reads nothing from the device."""

    def __init__(self, terminal: Terminal, bar: Progress, task: TaskID, plan: Plan) -> None:
        self._terminal, self._bar, self._task, self._plan = terminal, bar, task, plan
        self._start, self._images, self._where = time.perf_counter(), 0, ""
        self._lines = 0
        self._columns: list[epoch_line.Column] | None = None

    def begin_epoch(self, epoch: int, delta: float | None) -> None:
        """Show the epoch and δ."""
        level = "" if delta is None else f"  δ {delta:.3g}"
        self._where = f"epoch {epoch}/{self._plan.epochs}{level}"
        self._start, self._images = time.perf_counter(), 0
        self._bar.update(self._task, completed=self._plan.n * (epoch - 1), description=self._where)

    def advance(self, images: int) -> None:
        """Count an update on so many images."""
        self._images += images
        rate = self._images / max(time.perf_counter() - self._start, 1e-9)
        text = f"{self._where}  {rate:,.0f} images/s"
        self._bar.update(self._task, advance=images, description=text)

    def end_epoch(self, record: Record) -> None:
        """Print a line that stays; in a terminal with a heading every HEADING_EVERY epochs."""
        if self._lines % HEADING_EVERY == 0:
            self._columns = self._terminal.columns(record)
            if self._columns:
                self._terminal.say(epoch_line.heading(self._columns), style="bold")
        self._lines += 1
        if self._columns is None:
            self._terminal.say(epoch_line.describe(record))
        else:
            self._terminal.say(epoch_line.line(self._columns, record))
