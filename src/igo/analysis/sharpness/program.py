"""The program `igo sharpness`: it writes sharpness.json into the folder of each finished run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from igo.analysis.sharpness.measure import VERSION, Say, Settings, measure
from igo.config.load import read_config, split_off
from igo.ground.errors import UserError
from igo.ground.files import write_atomically
from igo.runs.find import find, named
from igo.runs.same_data import Comparison

FILE = "sharpness.json"


def run(composed: DictConfig) -> None:
    """Measure every run that has not been measured with these settings; print each result.

    Raises:
        SystemExit: 1 where a run could not be measured; the other runs were measured.
    """
    settings, _ = split_off(composed, Settings)
    folders = find(named(settings.runs))
    counts = {"measured": 0, "measured before": 0, "failed": 0}
    with _overview(len(folders)) as (say, doing, done):
        data = Comparison(say)
        for place, folder in enumerate(folders, 1):
            doing(folder.name)
            if not settings.fresh and _measured_before(folder, settings):
                outcome, message = _check_data(folder, settings, data)
            else:
                outcome, message = _attempt(folder, settings, doing)
            if message:
                say(f"[{place}/{len(folders)}] {outcome}: {folder.name}: {message}")
            counts[outcome] += 1
            done()
        say(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count))
    if counts["failed"]:
        raise SystemExit(1)


@contextmanager
def _overview(runs: int) -> Iterator[tuple[Say, Say, Callable[[], None]]]:
    """A progress bar over the runs if there is a terminal.

    Yields:
        Functions that print a line, show in the bar what is being done, and count a run as done.
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
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return bool((content["version"], content["settings"]) == (VERSION, settings.of_result()))
    except (OSError, ValueError, LookupError, TypeError):  # missing, damaged, or another content
        return False


def _check_data(folder: Path, settings: Settings, data: Comparison) -> tuple[str, str]:
    """Keep an earlier measurement if the data on this machine are the data of the run."""
    try:
        config = read_config(folder / "config.yaml")
        config.data_dir = settings.data_dir or config.data_dir
        data.finished(folder, config)
    except UserError as error:
        return "failed", str(error)
    return "measured before", ""


def _attempt(folder: Path, settings: Settings, doing: Say) -> tuple[str, str]:
    """Measure one run. An error is returned, so that it does not stop the other runs."""
    try:
        result = measure(folder, settings, doing)
        write_atomically(folder / FILE, json.dumps(result, indent=2, allow_nan=False) + "\n")
    except UserError as error:
        return "failed", str(error)
    except OSError as error:
        return "failed", f"{FILE} cannot be written ({error.strerror or error})"
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return "failed", f"{type(error).__name__}: {lines[0]}"
    return "measured", (
        f"loss {result['loss']:.4g}, worst case +{result['worst_case']:.4g}, largest eigenvalue"
        f" {result['largest_eigenvalue']:.4g}, trace {result['trace']:.4g} ±"
        f" {result['trace_standard_error']:.2g} ({result['seconds']:.1f} s)"
    )
