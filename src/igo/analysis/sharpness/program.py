"""From the settings of `igo sharpness` to a sharpness.json in the folder of each finished run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from igo.analysis.sharpness.measure import VERSION, Say, Settings, measure
from igo.config.load import of_file, split_off
from igo.errors import UserError
from igo.files import from_json, write_atomically
from igo.runs.find import find, named
from igo.runs.same_data import Comparison

FILE = "sharpness.json"


def run(composed: DictConfig) -> None:
    """Measure every run that has not been measured with these settings; say what came of each.

    Raises:
        SystemExit: 1 where a run could not be measured; the others were.
    """
    settings, _ = split_off(composed, Settings)
    folders = find(named(settings.runs))
    counts = {"measured": 0, "measured before": 0, "failed": 0}
    with _overview(len(folders)) as (say, doing, done):
        data = Comparison(say)
        for place, folder in enumerate(folders, 1):
            doing(folder.name)
            if not settings.fresh and _measured_before(folder, settings):
                how, said = _attempt_to_compare(folder, settings, data)
            else:
                how, said = _attempt(folder, settings, doing)
            if said:
                say(f"[{place}/{len(folders)}] {how}: {folder.name}: {said}")
            counts[how] += 1
            done()
        say(", ".join(f"{count} {how}" for how, count in counts.items() if count))
    if counts["failed"]:
        raise SystemExit(1)


@contextmanager
def _overview(runs: int) -> Iterator[tuple[Say, Say, Callable[[], None]]]:
    """A bar over the runs where there is a terminal.

    Yields:
        How to say a line, what is being done in the bar, and that a run is done.
    """
    console = Console(highlight=False, soft_wrap=True)
    bar = Progress(
        BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=runs)
        yield (
            lambda text: console.print(text, markup=False),
            lambda text: bar.update(task, description=text),
            lambda: bar.advance(task),
        )


def _measured_before(folder: Path, settings: Settings) -> bool:
    try:
        found = from_json((folder / FILE).read_text(encoding="utf-8"))
        return bool((found["version"], found["settings"]) == (VERSION, settings.of_result()))
    except (OSError, ValueError, LookupError, TypeError):  # none, damaged, or of something else
        return False


def _attempt_to_compare(folder: Path, settings: Settings, data: Comparison) -> tuple[str, str]:
    """What was measured before counts if it was on the data that are here."""
    try:
        config = of_file(folder / "config.yaml")
        config.data_dir = settings.data_dir or config.data_dir
        data.finished(folder, config)
    except UserError as error:
        return "failed", str(error)
    return "measured before", ""


def _attempt(folder: Path, settings: Settings, doing: Say) -> tuple[str, str]:
    """Measure one run; whatever is wrong with it, the others go on."""
    try:
        found = measure(folder, settings, doing)
        write_atomically(folder / FILE, json.dumps(found, indent=2, allow_nan=False) + "\n")
    except UserError as error:
        return "failed", str(error)
    except OSError as error:
        return "failed", f"{FILE} cannot be written ({error.strerror or error})"
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return "failed", f"{type(error).__name__}: {lines[0]}"
    return "measured", (
        f"loss {found['loss']:.4g}, worst case +{found['worst_case']:.4g}, largest eigenvalue"
        f" {found['largest_eigenvalue']:.4g}, trace {found['trace']:.4g} ±"
        f" {found['trace_standard_error']:.2g} ({found['seconds']:.1f} s)"
    )
