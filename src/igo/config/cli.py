"""From a command line to a program's function: Hydra, its errors in one line, and --help."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn, cast

import hydra
import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igo.config.load import explain
from igo.config.own import with_options
from igo.config.rules import right_options
from igo.config.schema import SETTINGS
from igo.ground.errors import ConfigError, UserError, first_line, nearest
from igo.ground.files import CONF, LAUNCH
from igo.ground.ranks import Ranks

# Hydra's flags that are of use here. argparse would also take --p=0.5, as --package=0.5.
FLAGS = {"-m", "--multirun", "-c", "--cfg", "--resolve", "-cd", "--config-dir", "-i", "--info",
         "-sc", "--shell-completion", "--hydra-help", "--version"}  # fmt: skip
VALUED = {"-c", "--cfg", "-cd", "--config-dir", "-i", "--info"}
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENAMETOOLONG)
ALIASES = {  # what settings are called elsewhere
    "lr": "learning_rate", "bs": "batch_size", "wd": "optimizer.weight_decay",
    "amp": "engine.precision", "gpu": "engine.device", "max_epochs": "epochs",
}  # fmt: skip
# The files in conf/, which --help shows with their comments.
GROUP = re.compile(r"^  - (?:override (?=hydra/launcher))?([\w/]+): (\w+)", re.MULTILINE)
DEFAULTS = re.compile(r"^defaults:\n(?:  .*\n)+\n?", re.MULTILINE)
SETTING = re.compile(r"( *)([a-z]\w*):\s*([^#]*?)\s*(?:#\s*(.*))?")
SECOND_COLUMN = 26  # characters before it


def hydra_program(program: Callable[[DictConfig, list[str]], object], config: Path) -> None:
    """Compose a file, such as conf/config.yaml, with the command line; call the program with it.

    The program gets the composed configuration and the names of the settings that were typed. A
    UserError, or an error in the configuration, ends in one line on stderr and exit code 2. A
    closed pipe ends the program silently.
    """
    _prepare_process()
    words = with_options(sys.argv[1:])
    asked = [word for word in words if word.split("=")[0] in ("--help", "-h")]
    failure = ""
    try:
        if asked:
            topic, width = asked[0].partition("=")[2], shutil.get_terminal_size().columns
            print(help_text(Path(sys.argv[0]).name, config, topic, width))
        elif composed := _compose(config, words):
            settings, of_hydra = composed
            if sweep := of_hydra.runtime.choices.get("sweep"):
                allowed = f"a sweep is many runs; add -m, or type: make sweep SWEEP={sweep}"
                raise ConfigError("sweep", sweep, allowed)
            overrides = cast(list[str], OmegaConf.to_container(of_hydra.overrides.task))
            program(settings, [line.split("=")[0].lstrip("+~") for line in overrides])
        sys.stdout.flush()  # output that cannot be written raises here, not at the exit
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise  # it is not rich's, which answers a closed pipe so
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for Python's own flush at the exit
        raise SystemExit(128 + signal.SIGPIPE) from None
    except UserError as error:
        failure = str(error)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        failure = f"{error.filename or 'output'} cannot be written ({error.strerror})"
    if failure:  # the error is gone, and with it the tensors of its traceback: the exit has room
        fail(failure)


def _prepare_process() -> None:
    """Mend what shells and clusters may have set, before anything is printed or imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # OmegaConf would lose Python's KeyboardInterrupt. Runs and sweeps handle signals later.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.stdout is None:  # closed
        sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # \u03b4 where the encoding has no δ
    if not os.environ.get("WANDB_MODE"):
        os.environ.pop("WANDB_MODE", None)  # W&B refuses an empty one
    # Some clusters set it. On a busy machine PyTorch can then wait for threads that never start.
    os.environ.pop("OMP_DYNAMIC", None)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises its errors


def fail(message: str) -> NoReturn:
    """End the program with one readable line, of the first rank that fails."""
    try:
        sys.stdout.flush()
    except OSError:  # a full disk: Python would try again at the exit, and print its own error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    ranks = Ranks.of_environment()
    ranks.let_first_speak()
    where = "" if ranks.first else f"in process {ranks.rank}: "
    line = message.replace("\n", "\\n")  # as in the name of a file
    print(f"error: {where}{line}", file=sys.stderr)
    raise SystemExit(2)


def _compose(config: Path, words: Sequence[str]) -> tuple[DictConfig, HydraConf] | None:
    """The settings and Hydra's own; None if Hydra has done all, as for --cfg or a sweep.

    The program is called with them later, so that Hydra's errors and the program's stay apart.
    """
    for word in words:
        if word.startswith("-") and word.split("=")[0] not in FLAGS:
            raise UserError(f"there is no flag {word}; settings are written NAME=VALUE")
    # argparse takes no flag, and no value of one, between two settings.
    pairs = pairwise(["", *words])
    flags = [w for b, w in pairs if w.startswith("-") or (b in VALUED and "=" not in w)]
    sys.argv[1:] = [*(word for word in words if word not in flags), *flags]
    composed = []

    @hydra.main(version_base="1.3", config_path=str(config.parent), config_name=config.stem)
    def main(settings: DictConfig) -> None:
        composed.append((settings, HydraConfig.get()))

    try:
        main()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise _explained(error, config) from None
    return composed[0] if composed else None


def _explained(error: Exception, config: Path) -> UserError:
    """One readable line for an error of Hydra, OmegaConf or YAML."""
    if isinstance(error, MissingConfigException):
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if not error.options:
            return UserError(f"{first_line(error)} (see --help)")
        return ConfigError(group, name, right_options(group, name, error.options))
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        where = f"{mark.name}, line {mark.line + 1}" if mark else "a file of settings"
        problem = getattr(error, "problem", None) or first_line(error)
        return UserError(f"{where}: {problem}; it must be YAML")
    if isinstance(error, UnicodeDecodeError):
        frames = (frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__))
        file = next((f["full_path"] for f in frames if "full_path" in f), "a file of settings")
        return UserError(f"{file}: {error.reason}; it must be UTF-8")
    text = " ".join(str(error).split())
    unknown = re.search(r"Could not (override|append|delete)[^']*'([^'=]+)", text)
    if unknown and unknown[1] == "append":
        said = f"{unknown[2]} is a setting already; leave the + out"
    elif unknown:
        said = _unknown_setting(unknown[2], config)
    elif isinstance(error, OmegaConfBaseException):
        return explain(error)
    else:
        said = f"{text} (settings are written NAME=VALUE)"
    return UserError(said)


def _unknown_setting(name: str, config: Path) -> str:
    """The error for a setting that the program, or the chosen option, does not have."""
    if name.endswith("._target_"):
        group = name.partition(".")[0]
        return f"leave {group}= out: {name} takes its place"
    if owners := options_with(name):
        return f"{name} is no setting here: it belongs to {', '.join(owners)}"
    known = [*settings_in(config)]
    if config.stem == "config":  # of the training, which has groups
        known += [*SETTINGS, *group_names()]
    hint = nearest(ALIASES.get(name, name), known)
    return f"there is no setting '{name}'.{hint} (see --help)"


def summary(config: Path) -> str:
    """What a program does: the first line of its file, such as conf/config.yaml."""
    return config.read_text().partition("\n")[0].removeprefix("# ")


def help_text(program: str, config: Path, topic: str, width: int) -> str:
    """Explain a program.

    Args:
        program: what is typed to start it.
        config: the file of its defaults, such as conf/config.yaml.
        topic: a group of settings: its files as they are; ``all``: those of all groups. Empty:
            the settings in ``config``, and the options of each group.
        width: characters in a line, wrapped between words.
    """
    groups: dict[str, str] = dict(GROUP.findall(config.read_text()))
    settings, topics = settings_in(config), ["all", *group_names()]
    if topic:
        if topic not in topics:
            raise ConfigError("--help", topic, right_options("--help", topic, topics))
        shared = {n: s for n, s in settings.items() if topic == "all" or n.startswith(f"{topic}.")}
        files = [
            f"--- {group}={path.stem}\n{DEFAULTS.sub('', path.read_text())}"
            for group in (groups if topic == "all" else [topic]) for path in options(group)
        ]  # fmt: skip
        return "\n".join([*_lines(shared), "", *files])
    typed = "[GROUP=OPTION] [SETTING=VALUE]" if groups else "[SETTING=VALUE]"
    lines = [summary(config), "", f"usage: {program} {typed} ..."]
    if groups:
        lines += [
            "  -m              sweeps: a run for each value of seed=0,1,2",
            "  --help=GROUP    the options and settings of a group; --help=all: of all groups",
        ]
    lines += ["  --cfg job       the settings as composed; --hydra-help: what Hydra offers", ""]
    lines += [*_lines(settings), ""]
    others = {g: ", ".join(o.stem for o in options(g) if o.stem != d) for g, d in groups.items()}
    lines += _lines({g: (d, f"or {others[g]}" if others[g] else "") for g, d in groups.items()})
    indent = " " * (SECOND_COLUMN + 3)
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False)
        for line in lines
    )


def _lines(settings: Mapping[str, tuple[str, str]]) -> list[str]:
    """``  name=value    comment``."""
    return [
        f"  {f'{name}={value}':<{SECOND_COLUMN}} {comment}".rstrip()
        for name, (value, comment) in settings.items()
    ]


def settings_in(file: Path) -> dict[str, tuple[str, str]]:
    """Value and comment of the settings in a YAML file, by name."""
    settings, parent = {}, ""
    for line in DEFAULTS.sub("", file.read_text()).partition("\nhydra:")[0].splitlines():
        if match := SETTING.fullmatch(line):
            indent, key, value, comment = match.groups()
            if not indent:
                parent = "" if value else f"{key}."
            if value:
                settings[f"{parent if indent else ''}{key}"] = value, comment or ""
    return settings


def options(group: str) -> list[Path]:
    """The files of a group's options, in conf/ or launch/; none if there is no such group."""
    return sorted([*(CONF / group).glob("*.yaml"), *(LAUNCH / group).glob("*.yaml")])


def group_names() -> list[str]:
    """All groups, in conf/ and launch/."""
    parents = {(root, path.parent) for root in (CONF, LAUNCH) for path in root.glob("*/**/*.yaml")}
    return sorted(str(folder.relative_to(root)) for root, folder in parents)


def options_with(setting: str) -> list[str]:
    """The options of a group that have this setting, as typed: ``schedule=step``."""
    group, _, name = setting.partition(".")
    names = {setting, name}  # a file has the full name if its package is global
    return [f"{group}={path.stem}" for path in options(group) if names & settings_in(path).keys()]
