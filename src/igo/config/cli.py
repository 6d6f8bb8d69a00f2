"""From a command line to a program's function: Hydra, its errors in one line, and --help."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, cast

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igo.config.help import (
    group_names,
    help_text,
    meant_setting,
    options,
    options_with,
    right_options,
    setting_names,
)
from igo.config.load import explain
from igo.ground.errors import ConfigError, UserError, first_line
from igo.ground.ranks import Ranks

EXIT_USER_ERROR = 2
# Hydra's flags that are of use here. argparse would also take --p=0.5, as --package=0.5.
FLAGS = {"-m", "--multirun", "-c", "--cfg", "--resolve", "-cd", "--config-dir", "-i", "--info",
         "-sc", "--shell-completion", "--hydra-help", "--version"}  # fmt: skip
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENAMETOOLONG)
FLAGS_WITH_VALUE = {"-c", "--cfg", "-cd", "--config-dir", "-i", "--info"}


def hydra_program(program: Callable[[DictConfig, list[str]], object], config: Path) -> None:
    """Compose a file, such as conf/config.yaml, with the command line; call the program with it.

    The program gets the composed configuration and the names of the settings that were typed. A
    UserError, or an error in the configuration, ends in one line on stderr and exit code 2. A
    closed pipe ends the program silently.
    """
    _end_at_control_c()
    _write_anywhere()
    if not os.environ.get("WANDB_MODE"):
        os.environ.pop("WANDB_MODE", None)  # W&B refuses an empty one
    # Some clusters set it. On a busy machine PyTorch can then wait for threads that never start.
    os.environ.pop("OMP_DYNAMIC", None)
    asked = [word for word in sys.argv[1:] if word.split("=")[0] in ("--help", "-h")]
    if asked:
        return _explain_program(config, asked[0].partition("=")[2])
    sys.argv[1:] = _flags_first(sys.argv[1:])
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors reach the lines below
    raised: list[Exception] = []  # by the program

    @hydra.main(version_base="1.3", config_path=str(config.parent), config_name=config.stem)
    def main(composed: DictConfig) -> object:
        hydra_config = HydraConfig.get()
        task_overrides = hydra_config.overrides.task
        overrides = cast(list[str], OmegaConf.to_container(task_overrides, resolve=False))
        sweep = hydra_config.runtime.choices.get("sweep")
        is_single = hydra_config.mode is RunMode.RUN
        if sweep and is_single:
            allowed = f"a sweep is many runs; add -m, or type: make sweep SWEEP={sweep}"
            fail(str(ConfigError("sweep", sweep, allowed)))
        try:
            return program(composed, [line.split("=")[0].lstrip("+~") for line in overrides])
        except UserError as error:
            if not is_single:
                raise
            fail(str(error))
        except OSError as error:
            _fail_if_disk(error)
        except Exception as error:
            raised.append(error)
            raise

    try:
        main()
        sys.stdout.flush()  # output that cannot be written raises here, not at the exit
    except BrokenPipeError:
        _end_quietly()
    except UserError as error:
        fail(str(error))
    except MissingConfigException as error:
        fail(_missing_config(error))
    except OSError as error:
        _fail_if_disk(error)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        fail(_composition_error(error, config))
    except ValueError as error:  # Hydra's own, as for dataset=null
        if error in raised:
            raise
        fail(first_line(error))


def _write_anywhere() -> None:
    """Write ``\\u03b4`` where the encoding has no δ, and nothing where stdout is closed."""
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flags_first(arguments: list[str]) -> list[str]:
    """The command line with flags and their values before the settings, as argparse needs it."""
    for argument in arguments:
        flag = argument.split("=")[0]
        if flag.startswith("-") and flag not in FLAGS:
            fail(f"there is no flag {flag}; settings are written NAME=VALUE, without dashes")
    flags = [
        argument for previous, argument in zip(["", *arguments], arguments, strict=False)
        if argument.startswith("-") or (previous in FLAGS_WITH_VALUE and "=" not in argument)
    ]  # fmt: skip
    return flags + [argument for argument in arguments if argument not in flags]


def _explain_program(config: Path, topic: str) -> None:
    """Answer --help, or --help=TOPIC."""
    topics = ["all", *group_names()]
    if topic and topic not in topics:
        fail(f"--help={topic}: {right_options('--help', topic, topics)}")
    program = sys.argv[0]
    if not program.startswith("igo "):  # which igo.__main__ writes there
        module = sys.modules["__main__"].__spec__
        script = Path(program).resolve()
        program = f"python {script.parent.name}/{script.name}"
        if module is not None:
            program = f"python -m {module.name.removesuffix('.__main__')}"
    width = shutil.get_terminal_size((0, 0)).columns  # 0: a file or a pipe
    print_help(help_text(program, config, topic, width))


def print_help(text: str) -> None:
    """Print the text. A closed pipe ends the program silently."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _end_quietly()


def _end_at_control_c() -> None:
    """Let Ctrl-C end the process at once, until a run or a sweep handles signals itself.

    OmegaConf's cleaning would lose Python's KeyboardInterrupt, or turn it into another error.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end_quietly() -> NoReturn:
    """End silently, with the exit code of a program that SIGPIPE ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for Python's own flush at the exit
    raise SystemExit(128 + signal.SIGPIPE)


def fail(message: str) -> NoReturn:
    """End the program with one readable line, of the first rank that fails."""
    try:
        sys.stdout.flush()
    except OSError:  # a full disk: Python would try again at the exit, and print its own error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    ranks = Ranks.of_environment()
    ranks.let_first_speak()
    where = "" if ranks.first else f"in process {ranks.rank}: "
    print(f"error: {where}{message}", file=sys.stderr)
    raise SystemExit(EXIT_USER_ERROR)


def _fail_if_disk(error: OSError) -> NoReturn:
    """End with one line if a disk is full or broken or a name is too long; else raise the error."""
    if error.errno not in DISK_ERRORS:
        raise error
    fail(f"{error.filename or 'output'} cannot be written ({error.strerror})")


def _missing_config(error: MissingConfigException) -> str:
    """The error for an option that a group does not have."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if not error.options:
        return f"{first_line(error)}. The groups are {', '.join(group_names())}."
    elsewhere = [f"{g}={name}" for g in group_names() if name in {f.stem for f in options(g)}]
    hint = f" Did you mean {' or '.join(elsewhere)}?" if elsewhere else ""
    return str(ConfigError(group, name, right_options(group, name, error.options) + hint))


def _composition_error(error: Exception, config: Path) -> str:
    text = str(error)
    unknown = re.search(r"Could not (?:override|append|delete)[^']*'([^'=]+)", text)
    if unknown:
        return _unknown_setting(unknown[1], config)
    ambiguous = re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", text)
    if ambiguous:
        name, value = ambiguous.groups()
        allowed = "these are several values: add -m for a run of each"
        return str(ConfigError(name, value, f"{allowed}; a list is written [{value}]"))
    if isinstance(error, OmegaConfBaseException):
        return str(explain(error))
    if isinstance(error, yaml.YAMLError):
        return _yaml_error(error)
    first = first_line(error)
    if "parsing override" in first:
        return f"{first}; settings are written NAME=VALUE, special characters quoted"
    return f"{first} ({first_line(error.__cause__)})" if error.__cause__ else first


def _yaml_error(error: yaml.YAMLError) -> str:
    """The file, the line and the mistake in it."""
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}" if mark else "a file of settings"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{where}: {problem}; it must be YAML"


def _unknown_setting(name: str, config: Path) -> str:
    """The error for a setting that the program, or the chosen option, does not have."""
    known = setting_names(config)
    if name in known and (elsewhere := options_with(name)):
        main = name.rpartition(".")[2]  # such as p for schedule.p
        hint = f". Did you mean '{main}'?" if main in known else ""
        return f"{name} is no setting here: it belongs to {', '.join(elsewhere)}{hint}"
    if name in group_names():
        return f"{name} is a group of settings: choose one of its options"
    hint = meant_setting(name, [*known, *group_names()])
    return f"there is no setting '{name}'.{hint} (see --help)"
