"""An error of Hydra, OmegaConf or YAML in one line, with what was perhaps meant."""

import re
from pathlib import Path

import yaml
from hydra.errors import MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from igo.config.help import group_names, options, settings_in
from igo.config.load import setting_error
from igo.config.own import NAMES
from igo.config.rules import right_options
from igo.config.schema import SETTINGS
from igo.ground.errors import ConfigError, UserError, first_line, nearest

HABITS = {  # What other programs call settings.
    "learning_rate": "lr",
    "batch_size": "bs train_batch_size per_device_train_batch_size",
    "max_batch_size": "b_max max_bs",
    "epochs": "max_epochs num_train_epochs total_steps max_steps num_steps steps max_iters T_max",
    "seed": "random_seed manual_seed",
    "data_dir": "data_root data_path",
    "runs_dir": "output_dir out_dir save_dir log_dir logdir",
    "dataset.workers": "num_workers",
    "dataset.validation": "val_split",
    "model": "arch net",
    "optimizer": "opt",
    "optimizer.weight_decay": "wd",
    "schedule.floor": "min_lr eta_min lr_min",
    "schedule.warmup": "warmup_steps warmup_epochs warmup_ratio",
    "engine.device": "gpu gpus devices",
    "engine.precision": "amp dtype",
    "engine.micro_batch_size": "gradient_accumulation_steps accumulate_grad_batches",
    "tracking": "wandb",
    "tracking.name": "run_name",
}
ALIASES = {word: name for name, words in HABITS.items() for word in words.split()}
CURES = {  # What to type for settings that exist under no other name.
    "dataset._target_": "images of your own are dataset=folder or dataset=arrays",
    "method": "the methods are options of schedule, such as schedule=method3",
    "optimizer.nesterov": "type optimizer._target_=torch.optim.SGD optimizer.momentum=0.9"
    " optimizer.nesterov=true",
    "schedule.step_size": "stages are equally long, and schedule.stages is their number",
    "output": "igo report output=FOLDER writes its tables as files",
    "target": "igo report target=ACCURACY compares the updates and images up to it",
    "hydra.launcher.gpus": "that of hydra/launcher=slurm is hydra.launcher.gpus_per_node",
    "hydra.launcher.timeout_min": "that of hydra/launcher=slurm is hydra.launcher.time",
}
# Whoever looks for such a setting wants an unfinished run to go on.
CONTINUES = re.compile("resum|continu|restart|checkpoint$|ckpt")


def explained(error: Exception, config: Path) -> UserError:
    """One readable line for an error of Hydra, OmegaConf or YAML."""
    if isinstance(error, MissingConfigException):
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if not error.options:  # There is no such group.
            return UserError(f"{first_line(error)} (see --help)")
        return ConfigError(group, name, right_options(group, name, error.options))
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
    if match := re.search(r"Could not (?:override|delete)[^']*'([^'=]+)", text):
        message = _unknown_setting(match[1], config)
    elif match := re.search(r"Multiple values for (.+)\. To override", text):
        message = (
            f"{match[1]} is chosen already: leave the + out; a file's defaults have"
            f" override /{match[1]}: OPTION"
        )
    elif match := re.search(r"Ambiguous value for argument '([^'=]+)", text):
        message = f"{match[1]} has several values, and each is a run: add -m"
    elif isinstance(error, OmegaConfBaseException):
        return setting_error(error)
    else:
        message = f"{text} (settings are written NAME=VALUE)"
    return UserError(message)


def _unknown_setting(name: str, config: Path) -> str:
    """The error for a setting that the program, or the chosen option, does not have."""
    group, _, short_name = name.partition(".")
    if name in CURES:
        return f"there is no {name}: {CURES[name]}"
    if name.endswith("._target_") and group in NAMES:
        return f"leave {group}= out: {name} takes its place"
    # A file has the full name if its package is global, and else the short one. Without a group
    # learning_rate, say, is another setting than optimizer.learning_rate.
    names_in_file = {name} if short_name in SETTINGS else {name, short_name}
    if owners := [file for file in options(group) if names_in_file & settings_in(file)]:
        cures = ", ".join(f"{group}={file.stem}" for file in owners)
        return f"{name} is no setting here: it belongs to {cures}"
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
