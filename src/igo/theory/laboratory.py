"""Which studies there are, and how a list of them is run into a results folder."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module

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


def chosen_studies(study: str | Sequence[str]) -> list[str]:
    """Return the studies named, in order; `all` is every one. ValueError names the nearest one."""
    names = [study] if isinstance(study, str) else list(study)
    if names == ["all"]:
        return list(STUDIES)
    if not names:
        raise ValueError(f"study=[]: choose from all, {', '.join(STUDIES)}")
    for name in names:
        if name not in STUDIES:
            near = get_close_matches(str(name), [*STUDIES, "all"], n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"study={name!r} is unknown: {hint}choose from all, {', '.join(STUDIES)}"
            )
    return [name for name in STUDIES if name in names]


def check_settings(settings: Settings) -> None:
    """Raise ValueError, naming the setting, before any work starts."""
    limits = {"starts": (2, 10_000), "budget": (100, 10**7), "workers": (1, 1024)}
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f"{name}={value} must be between {low} and {high}")
    if settings.seed < 0:
        raise ValueError(f"seed={settings.seed} must be ≥ 0")
    if settings.output.exists() and not settings.output.is_dir():
        raise ValueError(f"output={settings.output} is a file, not a folder")


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
