"""``igo COMMAND …``, or ``python -m igo COMMAND …``: the commands of this package.

The subpackages do the work. The settings of each command are in a file of conf/.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from igo.ground.errors import install, nearest
from igo.ground.files import CONF

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXTRAS = "train,report"  # The commands need these of pyproject.toml.

# A command imports what it needs when it runs, so that --help and --cfg answer at once.


def train_command(composed: DictConfig, typed: list[str]) -> float | None:
    """Train one run, or a sweep with -m. Return the accuracy, for a sweeper that optimizes it.

    The accuracy is the last epoch's, on the images held out for validation, else on the test set.
    """
    from igo.config.load import config_of
    from igo.runs.folder import read_records
    from igo.runs.run import run

    records = read_records(run(config_of(composed, typed)))
    last = records[-1] if records else {}  # A dry run has none.
    return last.get("validation/accuracy", last.get("test/accuracy"))


# The other commands, each with the module whose function ``run`` does the work. The command's
# configuration has the command's name.
MODULES = {
    "sync": "igo.runs.sync",
    "table": "igo.report.table",
    "report": "igo.report.report",
    "dashboard": "igo.launch.dashboard",
}
COMMANDS = {"train": "config"} | {name: name for name in MODULES}


def start_program(config: str) -> None:
    """Run the program of a configuration, with the arguments of the command line."""
    try:
        from igo.config.cli import hydra_program
    except ModuleNotFoundError as missing:
        cure = f"source .venv/bin/activate, or {install(EXTRAS)}"
        _fail(f"{missing.name} is missing: {cure}")

    def module_command(composed: DictConfig, _typed: list[str]) -> None:
        import_module(MODULES[config]).run(composed)

    command = train_command if config == "config" else module_command
    hydra_program(command, CONF / f"{config}.yaml")


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def main() -> None:
    """Run the command, with the arguments after it."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("--help", "-h"):
        # A closed pipe, as of ``igo --help | head``, ends the program without an error.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        usage = "usage: igo COMMAND [GROUP=OPTION] [SETTING=VALUE] ..."
        files = {name: (CONF / f"{config}.yaml").read_text() for name, config in COMMANDS.items()}
        # The first line of a configuration is a comment that says what its command does.
        lines = [f"  {name:<16}{text.splitlines()[0][2:]}" for name, text in files.items()]
        more = "igo COMMAND --help explains every setting of a command. igo --version"
        print("\n".join([usage, "", *lines, "", more]))
    elif command == "--version":
        print(f"igo {import_module('igo').__version__}")
    elif command not in COMMANDS:
        is_sweep = command == "sweep"
        near = " Type igo train -m sweep=NAME" if is_sweep else nearest(command, COMMANDS)
        _fail(f"there is no command '{command}'.{near} (igo --help lists all)")
    else:
        sys.argv[:2] = [f"igo {command}"]
        start_program(COMMANDS[command])


if __name__ == "__main__":
    main()
