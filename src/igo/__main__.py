"""``igo COMMAND …``, or ``python -m igo COMMAND …``: this project's programs by one name.

The work is done in the rooms; conf/ has a file a command, which says what it can be told.
"""

from __future__ import annotations

import sys

try:
    from omegaconf import DictConfig

    from igo.config.cli import fail, hydra_program, print_help
    from igo.config.help import summary
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is missing: pip install 'igo[train,report]'", file=sys.stderr)
    raise SystemExit(2) from None

from igo.errors import nearest
from igo.paths import CONF

# What a command needs is imported when it runs: --help and --cfg answer at once.


def train(composed: DictConfig, typed: list[str]) -> float | None:
    """One run, or a sweep with -m; the final validation accuracy, for a search."""
    from igo.config.load import load
    from igo.runs.rerun import continued

    if composed.run is None:
        checked = load(composed, typed)
    else:
        checked = continued(composed.run, composed, [name for name in typed if name != "run"])
    from igo.runs.folder import last_record
    from igo.runs.session import run

    return last_record(run(checked)).get("validation/accuracy")


def sweep_status(composed: DictConfig, _typed: list[str]) -> None:
    """How a sweep stands."""
    from igo.config.load import split_off
    from igo.sweep.status import StatusSettings, report

    settings, _ = split_off(composed, StatusSettings)
    report(settings)


def sync(composed: DictConfig, _typed: list[str]) -> None:
    """Offline runs, to W&B."""
    from igo.runs.sync import run

    run(composed)


def table(composed: DictConfig, _typed: list[str]) -> None:
    """Many runs as one table."""
    from igo.analysis.table.program import run

    run(composed)


def report(composed: DictConfig, _typed: list[str]) -> None:
    """Many runs as figures and a page."""
    from igo.analysis.report.program import run

    run(composed)


def sharpness(composed: DictConfig, _typed: list[str]) -> None:
    """How sharp the loss is where runs ended."""
    from igo.analysis.sharpness.program import run

    run(composed)


def measure_noise(composed: DictConfig, typed: list[str]) -> None:
    """C² and δ of a run or of a fresh model."""
    from igo.analysis.measure_noise import run

    run(composed, typed)


# By the names of their configurations; on the command line with dashes.
PROGRAMS = {"config": train} | {
    one.__name__: one for one in (sweep_status, sync, table, report, sharpness, measure_noise)
}
COMMANDS = {one.__name__.replace("_", "-"): name for name, one in PROGRAMS.items()}


def main() -> None:
    """Run the command that was typed first; all after it is its own."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("--help", "-h"):
        listed = [
            f"  {name:<16}{summary(CONF / f'{config_name}.yaml')}"
            for name, config_name in COMMANDS.items()
        ]
        print_help(
            "\n".join(
                ["usage: igo COMMAND [GROUP=OPTION] [SETTING=VALUE] ...", "", *listed, "",
                 "igo COMMAND --help explains every setting of a command."]
            )
        )  # fmt: skip
        return
    if {"-sc", "--shell-completion"} & set(sys.argv):
        fail("the shell completes `python src/train.py …`: python src/train.py -sc install=bash")
    if command not in COMMANDS:
        fail(f"there is no command '{command}'.{nearest(command, COMMANDS)} (igo --help lists all)")
    sys.argv[:2] = [f"igo {command}"]
    config_name = COMMANDS[command]
    hydra_program(PROGRAMS[config_name], CONF / f"{config_name}.yaml")


if __name__ == "__main__":
    main()
