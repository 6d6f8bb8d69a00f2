"""From a command line to a program's function: Hydra, its errors in one line, and --help."""

import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn, cast

import hydra
import yaml
from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igo.config.load import explain
from igo.config.own import NAMES, with_options
from igo.config.rules import right_options
from igo.config.schema import SETTINGS
from igo.ground.errors import ConfigError, UserError, first_line, nearest, require, told
from igo.ground.files import CONF, LAUNCH
from igo.ground.ranks import Ranks

# Hydra's flags that are of use here. argparse would also take --p=0.5, as --package=0.5.
VALUED = {"-c", "--cfg", "-cd", "--config-dir", "-i", "--info", "-p", "--package"}
FLAGS = {"-m", "--multirun", "--resolve", "-sc", "--shell-completion", "--hydra-help", "--version"}
FLAGS |= VALUED
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")  # They have no effect here.
HABITS = {  # What other programs call settings and, in the last lines, options.
    "learning_rate": "lr",
    "batch_size": "bs train_batch_size per_device_train_batch_size",
    "max_batch_size": "b_max max_bs",
    "epochs": "max_epochs num_train_epochs total_steps max_steps num_steps steps max_iters T_max",
    "seed": "random_seed manual_seed",
    "data_dir": "data_root data_path",
    "runs_dir": "output_dir out_dir save_dir log_dir logdir",
    "dataset.root": "path",
    "dataset.workers": "num_workers",
    "dataset.validation": "val_split",
    "dataset.augment.flip": "augment",
    "model": "arch net",
    "optimizer": "opt",
    "optimizer.weight_decay": "wd",
    "optimizer.beta2": "betas",
    "schedule.floor": "min_lr eta_min lr_min",
    "schedule.warmup": "warmup_steps warmup_epochs warmup_ratio",
    "schedule.share": "schedule.decay",
    "engine.device": "gpu gpus devices",
    "engine.precision": "amp dtype",
    "engine.micro_batch_size": "gradient_accumulation_steps accumulate_grad_batches",
    "tracking": "wandb",
    "tracking.name": "run_name",
    "gpu": "cuda",
    "cosine": "cosine_annealing",
    "exponential": "exp",
    "polynomial": "poly",
    "fashion_mnist": "mnist",
}
ALIASES = {word: name for name, words in HABITS.items() for word in words.split()}
CURES = {  # What to type for settings that exist under no other name.
    "dataset._target_": "images of your own are dataset=folder or dataset=arrays",
    "method": "the methods are options of schedule, such as schedule=method3",
    "optimizer.nesterov": "type optimizer._target_=torch.optim.SGD optimizer.momentum=0.9"
    " optimizer.nesterov=true",
    "schedule.step_size": "stages are equally long, and schedule.stages is their number",
    "hydra.launcher.gpus": "that of hydra/launcher=slurm is hydra.launcher.gpus_per_node",
    "hydra.launcher.timeout_min": "that of hydra/launcher=slurm is hydra.launcher.time",
}
# Whoever looks for such a setting wants an unfinished run to go on.
CONTINUES = re.compile("resum|continu|restart|checkpoint$|ckpt")
# The files in conf/, which --help shows with their comments.
GROUP = re.compile(r"^  - (?:override (?=hydra/launcher))?([\w/]+): (\w+)", re.MULTILINE)
DEFAULTS = re.compile(r"^defaults:\n(?:  .*\n)+\n?", re.MULTILINE)
Program = Callable[[DictConfig, list[str]], object]  # hydra_program says what it takes.


class GroupFolders(SearchPathPlugin):
    """Makes the groups of conf/ and launch/ known, wherever a program's file is.

    It is not in hydra_plugins, where Hydra would find it for every program of the environment.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add conf/, unless it is the first folder already, and launch/."""
        folders = {entry.path for entry in search_path.get_path()}
        for folder in (CONF, LAUNCH):
            if f"file://{folder}" not in folders:
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
            print(help_text(Path(sys.argv[0]).name, config, help_words[0].partition("=")[2]))
        else:
            for settings, names in _composed(program, config, words):
                program(settings, names)
        sys.stdout.flush()  # Output that cannot be written raises here, not at the exit.
    except (BrokenPipeError, SystemExit) as error:
        # rich turns a closed pipe into SystemExit; every other SystemExit is ours and goes on.
        if BrokenPipeError not in (type(error), type(error.__context__)):
            raise
        # Python flushes stdout once more at the exit, and would print an error about the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
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


def fail(message: str) -> NoReturn:
    """End the program with one readable line, of the first rank that fails."""
    try:
        sys.stdout.flush()
    except OSError:  # The disk is full: Python would try again at the exit, with its own error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    ranks = Ranks.of_environment()
    ranks.let_first_speak()
    rank_text = "" if ranks.first else f"in process {ranks.rank}: "
    line = message.replace("\n", "\\n")  # The name of a file may have several lines.
    print(f"error: {rank_text}{line}", file=sys.stderr)
    raise SystemExit(2)


def _composed(
    program: Program, config: Path, words: Sequence[str]
) -> Iterator[tuple[DictConfig, list[str]]]:
    """Let Hydra compose, and yield the settings of one run with the names of those typed.

    Hydra gives the runs of -m to their launcher, so none is left.
    """
    help_flags = {"--hydra-help"} & {*words}  # Beside it Hydra knows no settings.
    sys.argv[1:] = help_flags or _flags_last(words)
    script = sys.argv[0]
    single_runs: list[tuple[DictConfig, HydraConf | None]] = []

    @hydra.main(version_base="1.3", config_path=str(config.parent), config_name=config.stem)
    def main(settings: DictConfig) -> object:
        hydra_config = HydraConfig.get()
        if OmegaConf.is_missing(hydra_config.job, "num"):  # Each run of a multirun has a number.
            single_runs.append((settings, HydraConfig.instance().cfg))
            return None
        # This is a launcher of Hydra's own, maybe in another process.
        overrides = _overrides(hydra_config)
        sys.argv = [script, *overrides, *config_dirs(hydra_config)]  # status.json has it.
        try:
            return program(settings, names_of(overrides))
        except Exception as error:
            if not told(error):  # It is a mistake of the program, and a pickle loses its traceback.
                traceback.print_exc()
            text = f"the run {' '.join(overrides)}: {told(error) or first_line(error)}"
            raise UserError(text) from None  # The launcher can pickle it.

    try:
        main()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise _explained(error, config) from None
    # One run begins here, not in Hydra's job: Hydra would print a line of its own about an error.
    for settings, context in single_runs:
        # Hydra took back ${hydra:...} in settings, and variables, when its job ended.
        HydraConfig.instance().cfg = context
        hydra_config = HydraConfig.get()
        os.environ.update(hydra_config.job.env_set)
        _refuse_sweeps(hydra_config)
        yield settings, names_of(_overrides(hydra_config))


def _overrides(hydra_config: HydraConf) -> list[str]:
    """The settings as they were typed."""
    return cast(list[str], OmegaConf.to_container(hydra_config.overrides.task))


def names_of(overrides: Sequence[str]) -> list[str]:
    """The names of the settings in overrides."""
    return [line.split("=")[0].lstrip("+~") for line in overrides]


def _flags_last(words: Sequence[str]) -> list[str]:
    """The words with flags at the end: argparse takes none between two settings."""
    settings, flags = list[str](), list[str]()
    names = {word.partition("=")[0] for word in words}
    if names & {"-p", "--package"} and not names & {"-c", "--cfg"}:  # Hydra would ignore it.
        raise UserError("-p is a flag of --cfg; the exponent is written p=0.1")
    for previous_word, word in pairwise(["", *words]):
        name, _, value = word.partition("=")
        if word.startswith("-") and (name not in FLAGS or word.endswith("=")):
            raise UserError(f"there is no flag {word}; settings are written NAME=VALUE")
        advice = "each run has its own folder, in runs_dir"
        require(name.lstrip("+") not in FOLDERS, name, value, advice)
        require(not value.startswith("~"), name, value, "type $HOME in place of ~")
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


def _explained(error: Exception, config: Path) -> UserError:
    """One readable line for an error of Hydra, OmegaConf or YAML."""
    if isinstance(error, MissingConfigException):
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if not error.options:
            return UserError(f"{first_line(error)} (see --help)")
        option = ALIASES.get(name, name)
        return ConfigError(group, name, right_options(group, option, error.options))
    if isinstance(error, yaml.YAMLError):
        # Errors of some kinds, such as a wrong character, have no place in the file.
        mark = getattr(error, "problem_mark", None)
        file_text = f"{mark.name}, line {mark.line + 1}" if mark else "a file of settings"
        problem = getattr(error, "problem", None) or first_line(error)
        return UserError(f"{file_text}: {problem}; it must be YAML")
    if isinstance(error, UnicodeDecodeError):
        return UserError(f"a file of settings: {error.reason}; it must be UTF-8")
    # Hydra's messages have several lines, and an error here has one.
    text = " ".join(str(error).split())
    # There is no class of error for these cases, so the words of Hydra and OmegaConf tell them.
    match = re.search(r"Could not (override|append|delete)[^']*'([^'=]+)", text)
    if match and match[1] == "append":
        message = f"{match[2]} is a setting already; leave the + out"
    elif match:
        message = _unknown_setting(match[2], config)
    elif match := re.search(r"Multiple values for (.+)\. To override", text):
        message = (
            f"{match[1]} is chosen already: leave the + out; a file's defaults have"
            f" override /{match[1]}: OPTION"
        )
    elif match := re.search(r"Ambiguous value for argument '([^'=]+)", text):
        message = f"{match[1]} has several values, and each is a run: add -m"
    elif isinstance(error, OmegaConfBaseException):
        return explain(error)
    else:
        message = f"{text} (settings are written NAME=VALUE)"
    return UserError(message)


def _unknown_setting(name: str, config: Path) -> str:
    """The error for a setting that the program, or the chosen option, does not have."""
    # A file has the full name if its package is global, and else the short one.
    group, _, short_name = name.partition(".")
    if name in CURES:
        return f"there is no {name}: {CURES[name]}"
    if name.endswith("._target_") and group in NAMES:
        return f"leave {group}= out: {name} takes its place"
    words = {name} | ({short_name} - SETTINGS.keys())
    if owners := [file for file in options(group) if words & settings_in(file)]:
        cures = ", ".join(f"{group}={file.stem}" for file in owners)
        hint = f"; that of wsd is {ALIASES[name]}" if name in ALIASES else ""
        return f"{name} is no setting here: it belongs to {cures}{hint}"
    if name in group_names():
        return f"{name} is a group of settings: type {name}=OPTION or {name}.SETTING=VALUE"
    if CONTINUES.search(name):
        return f"there is no setting '{name}': the same command continues an unfinished run"
    names = settings_in(config)
    if config.stem == "config":  # The training alone has groups.
        names |= {*SETTINGS, *group_names()}
    last_part = name.rpartition(".")[2]  # trainer.max_epochs means max_epochs.
    namesakes = sorted(x for x in names if x.rpartition(".")[2] == last_part)
    # A guess never offers what deletes a run.
    hint = nearest(ALIASES.get(last_part) or [*namesakes, name][0], names - {"fresh"})
    return f"there is no setting '{name}'.{hint} (see --help)"


def help_text(program: str, config: Path, topic: str) -> str:
    """Explain a program by the comments in the file of its defaults, and the options of each group.

    With a group of settings as ``topic``: by its files; with ``all``: by those of all groups.
    """
    groups: dict[str, str] = dict(GROUP.findall(config.read_text()))
    text = DEFAULTS.sub("", config.read_text()).partition("\nhydra:")[0]
    if topic:
        topics = ["all", *group_names()]
        require(topic in topics, "--help", topic, right_options("--help", topic, topics))
        if topic != "all":
            text = "".join(re.findall(rf"^{topic}:.*\n(?:  .*\n)*", text, re.MULTILINE))
        for group in groups if topic == "all" else [topic]:
            for path in options(group):
                text += f"\n--- {group}={path.stem}\n{DEFAULTS.sub('', path.read_text())}"
        return text
    if program.startswith("igo "):
        text = text.replace("python src/train.py", program)
    arguments = "[GROUP=OPTION] [SETTING=VALUE]" if groups else "[SETTING=VALUE]"
    group_lines = [
        f"{f'{group}={default}':<22}# {', '.join(option.stem for option in options(group))}"
        for group, default in groups.items()
    ]
    return "\n".join([f"usage: {program} {arguments} ...\n", text, *group_lines])


def settings_in(file: Path) -> set[str]:
    """The names of the settings in a YAML file."""
    names = set[str]()
    for name, value in (yaml.safe_load(file.read_text()) or {}).items():
        names |= {f"{name}.{key}" for key in value} if isinstance(value, dict) else {name}
    return names - {"defaults"}


def options(group: str) -> list[Path]:
    """The files of a group's options, in conf/ or launch/; none if there is no such group."""
    return sorted([*(CONF / group).glob("*.yaml"), *(LAUNCH / group).glob("*.yaml")])


def group_names() -> list[str]:
    """All groups, in conf/ and launch/."""
    files = [path.relative_to(root) for root in (CONF, LAUNCH) for path in root.glob("*/**/*.yaml")]
    return sorted({str(file.parent) for file in files})
