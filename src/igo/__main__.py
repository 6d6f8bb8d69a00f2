"""``igo COMMAND …``, or ``python -m igo COMMAND …``: the commands of this package.

The subpackages do the work. The settings of each command are in a file of conf/.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from importlib import import_module

try:
    from omegaconf import DictConfig

    from igo.config.cli import fail, hydra_program, summary
except ModuleNotFoundError as missing:
    cure = "source .venv/bin/activate, or pip install '.[train,report]' in the clone of igo"
    print(f"error: {missing.name} is missing: {cure}", file=sys.stderr)
    raise SystemExit(2) from None

from igo.ground.errors import nearest
from igo.ground.files import CONF

# A command imports what it needs when it runs, so that --help and --cfg answer at once.


def train(composed: DictConfig, typed: list[str]) -> None:
    """Train one run, or a sweep with -m."""
    from igo.config.load import load
    from igo.runs.session import run

    run(load(composed, typed))


def _run_of(module: str) -> Callable[[DictConfig, list[str]], None]:
    """A program that imports a module and calls its function ``run``."""

    def program(composed: DictConfig, _typed: list[str]) -> None:
        import_module(module).run(composed)

    return program


# By the name of the configuration.
PROGRAMS: dict[str, Callable[[DictConfig, list[str]], object]] = {
    "config": train,
    "sync": _run_of("igo.runs.loggers.wandb"),
    "table": _run_of("igo.report.table"),
    "report": _run_of("igo.report.report"),
    "sharpness": _run_of("igo.runs.sharpness"),
}
COMMANDS = {"train": "config"} | {name: name for name in PROGRAMS if name != "config"}


def main() -> None:
    """Run the command, with the arguments after it."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("--help", "-h"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a closed pipe ends it without a word
        usage = "usage: igo COMMAND [GROUP=OPTION] [SETTING=VALUE] ..."
        lines = [f"  {c:<16}{summary(CONF / f'{name}.yaml')}" for c, name in COMMANDS.items()]
        more = "igo COMMAND --help explains every setting of a command."
        print("\n".join([usage, "", *lines, "", more]))
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
