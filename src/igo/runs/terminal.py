"""What a run prints: the plan, a line for each epoch, and in a terminal a progress bar.

A terminal and a pipe get the same lines, of at most 80 characters but for paths and prose.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn

from igo.config import own
from igo.config.names import schedule_name
from igo.config.schema import Config
from igo.ground.errors import counted, warn
from igo.ground.files import Record
from igo.plans.make import notes
from igo.plans.plan import Plan

HEADING_EVERY = 20  # lines, so that a heading is in sight in a terminal of 24
RELATIVE = (
    "φ_m is η/√b relative to its start, as planned; the noise also changes with C², as the model"
    " learns"
)
FAR = 2  # A last δ above so many times the plan's, or below that share of it, is worth a line.
SHOWN_EVERY = 0.1  # seconds; to show the bar takes some 40 µs, and an update may be as short
# The columns of the lines of epochs: the entry of the record, its title, the width in characters,
# and the format of its value.
COLUMNS = (
    ("epoch", "epoch", 5, "d"),
    ("delta_m", "δ_m", 9, ".4g"),
    ("delta_measured", "measured", 9, ".4g"),
    ("eta_m", "η_m", 9, ".4g"),
    ("b_m", "b_m", 8, ",.1f"),
    ("train/loss", "loss", 7, ".4f"),
    ("train/accuracy", "train", 7, ".2%"),
    ("validation/accuracy", "validation", 10, ".2%"),
    ("test/accuracy", "test", 7, ".2%"),
    ("images_per_second", "images/s", 8, ",.0f"),
)


class Terminal:
    """Output of one run; ``quiet`` for the ranks that print nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(highlight=False, markup=False, soft_wrap=True, quiet=quiet)

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self._console.print(text)

    def warn(self, text: str) -> None:
        """Print a warning to stderr."""
        if not self._console.quiet:
            warn(text)

    def show_plan(self, config: Config, plan: Plan) -> None:
        """Print a line of the run, the plan as ``print(plan)`` does, and notes on the plan."""
        count = config.schedule.stages or 1
        # Usually a stage is an epoch or longer, which is not said.
        stages = f" in {count} stages" if count > plan.epochs else ""
        groups = (config.model, config.optimizer)
        names = " and ".join(own.as_call(group.name, group.arguments) for group in groups)
        self.say(
            f"{schedule_name(config)}, on {config.dataset.name} (n = {plan.n:,}) with {names}:"
            f" {counted(plan.epochs, 'epoch')}{stages}, {counted(plan.updates, 'update')}"
        )
        self.say("\n".join([str(plan), RELATIVE, *plan_notes(config, plan)]))

    @contextmanager
    def progress(self, plan: Plan) -> Iterator[ProgressBar]:
        """Give the body a bar that prints a line for each epoch.

        In a terminal the bar itself is shown, too. It counts all images of the run.
        """
        with Progress(
            BarColumn(bar_width=16),
            "{task.percentage:>3.0f}% {task.description}",
            TimeRemainingColumn(),
            "left",
            console=self._console,
            refresh_per_second=2,
            transient=True,
            disable=not self._console.is_terminal,
        ) as bar:
            yield ProgressBar(bar, plan)


class ProgressBar:
    """Shows how far a run is: a line for each epoch, and rich's ``bar``.

    It reads nothing from a GPU, which would have to finish its work first.
    """

    def __init__(self, bar: Progress, plan: Plan) -> None:
        self._bar, self._plan = bar, plan
        self._task = bar.add_task("", total=plan.n * plan.epochs)
        self._images = 0  # all images of the updates so far
        self._lines = 0  # the lines of epochs so far
        self._shown_time = 0.0  # when the bar last showed its images, in seconds of perf_counter

    def begin_epoch(self, epoch: int, delta: float | None) -> None:
        """Show the epoch, counted from 1, and its planned δ; None is a δ that is not known."""
        delta_text = "" if delta is None else f"  δ {delta:.3g}"
        description = f"epoch {epoch}/{self._plan.epochs}{delta_text}"
        self._images = self._plan.n * (epoch - 1)
        self._bar.update(self._task, completed=self._images, description=description)

    def advance(self, images: int) -> None:
        """Count an update on so many images. The bar shows them every SHOWN_EVERY seconds."""
        self._images += images
        seconds = time.perf_counter()
        if seconds - self._shown_time > SHOWN_EVERY:
            self._bar.update(self._task, completed=self._images)
            self._shown_time = seconds

    def end_epoch(self, record: Record) -> None:
        """Print a line that stays, with a heading every HEADING_EVERY epochs.

        A dash stands for what was not measured or evaluated. If images are held out for validation,
        the line has their accuracy and not images/s, so that it has at most 79 characters: in a
        terminal of 80 columns it is one line.
        """
        left_out = "images_per_second" if "validation/accuracy" in record else "validation/accuracy"
        titles, cells = [], []
        for entry, title, width, form in COLUMNS:
            if entry != left_out:
                value = record[entry]
                text = "–" if value is None else format(value, form)
                titles.append(title.rjust(width))
                cells.append(text.rjust(width))
        if self._lines % HEADING_EVERY == 0:
            self._bar.console.print(" ".join(titles), style="bold")
        self._lines += 1
        self._bar.console.print(" ".join(cells))


def noise_note(record: Record) -> str:
    """A line on how C² changed up to the last epoch, whose record this is.

    It is empty unless the measured δ is far from the planned one, see FAR.
    """
    planned, measured = record["delta_m"], record["delta_measured"]
    if not planned or not measured:
        return ""
    ratio = measured / planned
    if 1 / FAR <= ratio <= FAR:
        return ""
    start, end = record["reference_variance"], record["gradient_variance"]
    share = f"1/{_rounded(1 / ratio)} of" if ratio < 1 else f"{_rounded(ratio)} times"
    verb = "fell" if end < start else "rose"
    change = f"C² {verb} from {_rounded(start)} to {_rounded(end)}"
    return f"{change}: δ as measured ended at {share} the plan"


def _rounded(number: float) -> str:
    """The number rounded to two significant digits, such as 0.0041 or 12,000."""
    return f"{float(f'{number:.2g}'):,g}"


def plan_notes(config: Config, plan: Plan) -> list[str]:
    """Lines on what the numbers of a plan do not say by themselves; there may be none."""
    texts, optimizer = notes(plan), config.optimizer
    rows_with_noise = [row for row in plan.rows if row.phi_m > 0]
    start, end = rows_with_noise[0], rows_with_noise[-1]
    if optimizer.name in ("shb", "nshb") and optimizer.momentum and end.b_m > start.b_m:
        # δ² of heavy ball is the sum of a term with C², whose root falls as η/√b, and a term with
        # ‖∇f‖², whose root falls as η. So δ itself falls by a factor between these two.
        texts.append(
            f"φ_m is SGD's: δ of {optimizer.name} changes to between {end.phi_m:.2g} and"
            f" {end.eta_m / start.eta_m:.2g} of its start, the more the larger ‖∇f‖ is, which a"
            " growing b does not lower; with split=1 both are equal"
        )
    if optimizer.why_null:
        texts.append(optimizer.why_null)
    return texts
