"""Which studies there are, and how a list of them is run into a results folder."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig, ListConfig
from rich.console import Console

from igo.errors import ConfigError, nearest
from igo.theory.studies import report
from igo.theory.studies.report import Row, Settings

STUDIES = (
    "smoothing",
    "identity",
    "noise",
    "nice",
    "convexity",
    "movement",
    "decay_rates",
    "explicit",
    "implicit",
    "pictures",
    "comparison",
    "digits",
    "remaining",
)
PARALLEL = "comparison"  # the one that uses every worker by itself


RANGES = {"starts": (2, 10_000), "budget": (100, 10**7), "workers": (1, 1024), "seed": (0, 2**32)}


def run(composed: DictConfig) -> None:
    """Check the configuration, run its studies, and say where the results are.

    Raises:
        ConfigError: naming the setting, before any work starts.
    """
    console = Console(highlight=False)
    study = composed.study
    names = chosen_studies(list(study) if isinstance(study, ListConfig) else study)
    numbers = {name: _number(name, composed[name]) for name in RANGES}
    output = composed.output
    if not isinstance(output, str) or not output or Path(output).is_file():
        raise ConfigError("output", output, "it must be the name of a folder")
    settings = Settings(Path(output), progress=lambda text: console.print(f"  {text}"), **numbers)
    seconds = run_studies(names, settings, console.print)
    console.print(f"{sum(seconds.values()):.0f} s, results in {settings.output}/README.md")


def chosen_studies(study: str | Sequence[str] | None) -> list[str]:
    """Return the studies named, in order; `all` is every one.

    Raises:
        ConfigError: a name that is none, with the nearest one, or no name at all.
    """
    names = [study] if isinstance(study, str) else list(study or [])
    if names == ["all"]:
        return list(STUDIES)
    for name in names or [""]:
        if name not in STUDIES:
            allowed = f"it must be all, or of {', '.join(STUDIES)}.{nearest(str(name), STUDIES)}"
            raise ConfigError("study", name or "[]", allowed)
    return [name for name in STUDIES if name in names]


def _number(name: str, value: object) -> int:
    low, high = RANGES[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(name, value, f"it must be a whole number from {low} to {high}")
    return value


def run_studies(
    names: Sequence[str], settings: Settings, announce: Callable[[str], None]
) -> dict[str, float]:
    """Run the studies into `settings.output`; return the seconds that each took.

    The comparison first, by itself; then the others, `workers` of them at a time.
    Rows of studies that were not run stay as the last run left them.
    """
    settings.output.mkdir(parents=True, exist_ok=True)
    seconds = {}
    alone = [name for name in names if name == PARALLEL or len(names) == 1]
    side_by_side = [name for name in names if name not in alone]
    for name in alone:
        announce(f"{name} …")
        rows, seconds[name] = run_study(name, settings)
        report.save_rows(settings.output, name, rows, STUDIES)
    with ProcessPoolExecutor(settings.workers) as pool:
        quiet = replace(settings, progress=report.silent)
        running = {pool.submit(run_study, name, quiet): name for name in side_by_side}
        for done, future in enumerate(as_completed(running), 1):
            name = running[future]
            rows, seconds[name] = future.result()
            report.save_rows(settings.output, name, rows, STUDIES)
            announce(f"{name}: {seconds[name]:.0f} s ({done}/{len(running)})")
    report.write_readme(settings.output, settings, seconds)
    return seconds


def run_study(name: str, settings: Settings) -> tuple[list[Row], float]:
    """Run one study; return its rows and the seconds it took."""
    began = time.perf_counter()
    rows: list[Row] = import_module(f"igo.theory.studies.{name}").run(settings)
    return rows, time.perf_counter() - began
