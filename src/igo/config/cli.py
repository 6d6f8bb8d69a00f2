"""From a command line to a program's function: Hydra, and errors in one line."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn, cast

import hydra
import yaml
from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igo.config.help import help_text
from igo.config.hints import explained
from igo.config.own import with_options
from igo.ground.errors import ConfigError, UserError, first_line, require, told
from igo.ground.files import CONF, LAUNCH
from igo.ground.ranks import Ranks

# Hydra's flags that are of use here. argparse would also take --p=0.5, as --package=0.5.
VALUED = {"-c", "--cfg", "-cd", "--config-dir", "-i", "--info"}
FLAGS = {"-m", "--multirun", "--resolve", "-sc", "--shell-completion", "--hydra-help", "--version"}
FLAGS |= VALUED
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")  # They have no effect here.
Program = Callable[[DictConfig, list[str]], object]  # hydra_program says what it takes.


class GroupFolders(SearchPathPlugin):
    """Makes the groups of conf/ and launch/ known, wherever a program's file is.

    It is not in hydra_plugins, where Hydra would find it for every program of the environment.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add conf/, which may be there already, and launch/."""
        for folder in (CONF, LAUNCH):
            search_path.append("igo", f"file://{folder}")


Plugins.instance().register(GroupFolders)  # Whoever imports this module composes igo's settings.


def hydra_program(program: Program, config: Path) -> None:
    """Compose a file, such as conf/config.yaml, with the command line; call the program with it.

    The program gets the composed configuration and the names of the settings that were typed. An
    error that the user can fix (see ``told``) ends in one line on stderr and exit code 2. A closed
    pipe ends the program silently.
    """
    _prepare_process()
    failure = ""
    try:
        words = with_options(sys.argv[1:])
        help_words = [word for word in words if word.split("=")[0] in ("--help", "-h")]
        if help_words:
            topic = help_words[0].partition("=")[2]
            print(help_text(Path(sys.argv[0]).name, config, topic))
        else:
            _compose_and_call(program, config, words)
        sys.stdout.flush()  # Output that cannot be written raises here, not at the exit.
    except (BrokenPipeError, SystemExit) as error:
        # rich turns a closed pipe into SystemExit; every other SystemExit is ours and goes on.
        if BrokenPipeError not in (type(error), type(error.__context__)):
            raise
        _discard_output()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except Exception as error:
        failure = told(error)
        if not failure:
            raise
    # This stands outside the `except`, because the traceback holds tensors, and handlers at the
    # exit may need their memory.
    if failure:
        fail(failure)


def _prepare_process() -> None:
    """Mend what shells and clusters may have set, before anything is printed or imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # OmegaConf would lose Python's KeyboardInterrupt, so Ctrl-C ends the process at once. Runs
        # and sweeps set handlers of their own later.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.stdout is None:  # The shell has closed it.
        sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # δ is \u03b4 in other encodings.
    # Some clusters set this variable. On a busy machine PyTorch can then wait for threads that
    # never start.
    os.environ.pop("OMP_DYNAMIC", None)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises its errors.


def _discard_output() -> None:
    """Send the rest of the output nowhere, where it cannot be written to stdout.

    Python flushes stdout once more at the exit, and would print an error of its own.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def fail(message: str) -> NoReturn:
    """End the program with one readable line, of the first rank that fails."""
    try:
        sys.stdout.flush()
    except OSError:  # The disk is full.
        _discard_output()
    ranks = Ranks.of_environment()
    ranks.let_first_speak()
    rank_text = "" if ranks.first else f"in process {ranks.rank}: "
    line = message.replace("\n", "\\n")  # The name of a file may have several lines.
    print(f"error: {rank_text}{line}", file=sys.stderr)
    raise SystemExit(2)


def _compose_and_call(program: Program, config: Path, words: Sequence[str]) -> None:
    """Let Hydra compose what the words say; call the program with it.

    With -m Hydra gives the runs to a launcher. One of igo's trains them by itself, and one of
    Hydra's own calls the program for each.
    """
    _check_words(words)
    # Beside --hydra-help Hydra knows no settings.
    sys.argv[1:] = ["--hydra-help"] if "--hydra-help" in words else _flags_last(words)
    script = sys.argv[0]
    single_runs: list[tuple[DictConfig, HydraConf | None]] = []

    @hydra.main(version_base="1.3", config_path=str(config.parent), config_name=config.stem)
    def main(settings: DictConfig) -> object:
        is_single = OmegaConf.is_missing(HydraConfig.get().job, "num")  # Each of many has a number.
        if not is_single:
            return _call_for_launcher(program, settings, script)
        # A single run begins below, when Hydra's job has ended, and needs its configuration there.
        single_runs.append((settings, HydraConfig.instance().cfg))
        return None

    try:
        main()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise explained(error, config) from None
    # A single run begins here, not in Hydra's job: Hydra would print a line of its own about an
    # error.
    for settings, context in single_runs:
        # Hydra took back ${hydra:...} in settings, and variables, when its job ended.
        HydraConfig.instance().cfg = context
        hydra_config = HydraConfig.get()
        os.environ.update(hydra_config.job.env_set)
        _refuse_sweeps(hydra_config)
        program(settings, names_of(_overrides(hydra_config)))


def _call_for_launcher(program: Program, settings: DictConfig, script: str) -> object:
    """Call the program for a run of a launcher of Hydra's own, maybe in another process.

    Raises:
        UserError: the run failed. It is one line, because the launcher pickles it.
    """
    hydra_config = HydraConfig.get()
    overrides = _overrides(hydra_config)
    sys.argv = [script, *overrides, *config_dirs(hydra_config)]  # status.json has it.
    try:
        return program(settings, names_of(overrides))
    except Exception as error:
        if not told(error):  # It is a mistake of the program, and a pickle loses its traceback.
            traceback.print_exc()
        text = f"the run {' '.join(overrides)}: {told(error) or first_line(error)}"
        raise UserError(text) from None


def _overrides(hydra_config: HydraConf) -> list[str]:
    """The settings as they were typed."""
    return cast(list[str], OmegaConf.to_container(hydra_config.overrides.task))


def names_of(overrides: Sequence[str]) -> list[str]:
    """The names of the settings in overrides."""
    return [line.split("=")[0].lstrip("+~") for line in overrides]


def _check_words(words: Sequence[str]) -> None:
    """Refuse words that would do nothing, or something else than they say."""
    for word in words:
        name, _, value = word.partition("=")
        # There is no such flag, or its value after = was left out.
        if word.startswith("-") and (name not in FLAGS or word.endswith("=")):
            raise UserError(f"there is no flag {word}; settings are written NAME=VALUE")
        advice = "each run has its own folder, in runs_dir"
        require(name.lstrip("+") not in FOLDERS, name, value, advice)
        require(not value.startswith("~"), name, value, "type $HOME in place of ~")


def _flags_last(words: Sequence[str]) -> list[str]:
    """The words with flags and their values last: argparse takes none between two settings."""
    settings, flags = list[str](), list[str]()
    for previous_word, word in pairwise(["", *words]):
        # A word with = is a setting, even if the flag before it lacks its value.
        is_value = previous_word in VALUED and "=" not in word
        (flags if word.startswith("-") or is_value else settings).append(word)
    return settings + flags


def _refuse_sweeps(hydra_config: HydraConf) -> None:
    """Without -m Hydra would train one run, and leave a sweep's file or a launcher unread."""
    if sweep := hydra_config.runtime.choices.get("sweep"):
        raise ConfigError(
            "sweep", sweep, f"a sweep is many runs; add -m, or type: make sweep SWEEP={sweep}"
        )
    for word in hydra_config.overrides.hydra:
        name, _, value = word.partition("=")
        require(name != "hydra/launcher", name, value, "a launcher starts a sweep; add -m")


def config_dirs(hydra_config: DictConfig | HydraConf) -> list[str]:
    """The flags that a command needs to find the files of settings that this one found."""
    return [
        f"--config-dir={source.path}"
        for source in hydra_config.runtime.config_sources
        if source.provider == "command-line"
    ]
