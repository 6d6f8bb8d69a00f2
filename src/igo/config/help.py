"""The text of --help, the names of settings, and what a person probably meant.

All of it is read from the files and comments in conf/.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from igo.ground.errors import nearest
from igo.ground.paths import CONF, LAUNCH

GROUPS = r"^  - (?:override (?=hydra/launcher))?([\w/]+): (\w+)"
DEFAULTS = r"^defaults:\n((?:  .*\n)+)"
SECOND_COLUMN = 26  # characters before it
ALIASES = {  # what settings are called elsewhere
    "lr": "learning_rate", "eta": "learning_rate", "bs": "batch_size", "b": "batch_size",
    "max_epochs": "epochs", "arch": "model", "data": "dataset", "beta": "optimizer.momentum",
    "wd": "optimizer.weight_decay", "scheduler": "schedule", "lambda": "schedule.lam",
    "gpu": "engine.device", "amp": "engine.precision", "num_workers": "dataset.workers",
    "wandb": "tracking", "output_dir": "runs_dir",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One line ``key: value  # comment`` of a YAML file, its name in full."""

    name: str
    value: str
    comment: str


def summary(config: Path) -> str:
    """What a program does, in one line."""
    comments = (line for line in config.read_text().splitlines() if line.startswith("# "))
    return next(line[2:] for line in comments if "@package" not in line)


def help_text(program: str, config: Path, topic: str = "", width: int = 0) -> str:
    """Explain a program.

    Args:
        program: what is typed to start it.
        config: the file of its defaults, such as conf/config.yaml.
        topic: a group of settings: its files as they are; ``all``: those of all groups. Empty:
            the settings in ``config``, and the options of each group.
        width: characters in a line, wrapped between words; 0: lines are not wrapped.
    """
    texts = _with_included(config)
    groups = {
        group: default
        for text in texts
        for group, default in re.findall(GROUPS, _defaults(text), re.M)
    }
    settings = [setting for text in texts for setting in _settings(_body(text))]
    if topic:
        shared = [_line(s) for s in settings if topic == "all" or s.name.startswith(f"{topic}.")]
        shown = [
            f"--- {group}={path.stem}\n{path.read_text()}"
            for group in (groups if topic == "all" else [topic]) for path in options(group)
        ]  # fmt: skip
        return "\n".join([*shared, "", *shown])
    typed = "[GROUP=OPTION] [SETTING=VALUE]" if groups else "[SETTING=VALUE]"
    lines = [summary(config), "", f"usage: {program} {typed} ..."]
    if groups:
        lines += [
            "  -m              sweeps: a run for each value of seed=0,1,2",
            "  --help=GROUP    the options and settings of a group; --help=all: of all groups",
        ]
    lines += ["  --cfg job       the settings as composed; --hydra-help: what Hydra offers", ""]
    lines += [_line(setting) for setting in settings] + [""] * bool(groups)
    for group, default in groups.items():
        others = ", ".join(path.stem for path in options(group) if path.stem != default)
        lines.append(_line(Setting(group, default, f"or {others}" if others else "")))
    indent = " " * (SECOND_COLUMN + 3)
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False)
        if 0 < width < len(line) else line
        for line in lines
    )  # fmt: skip


def _line(setting: Setting) -> str:
    typed = f"{setting.name}={setting.value}"
    return f"  {typed:<{SECOND_COLUMN}} {setting.comment}".rstrip()


def _with_included(config: Path) -> list[str]:
    """The text of a program's file, and of the whole configurations that it includes."""
    text = config.read_text()
    names = re.findall(r"^  - (\w+)$", _defaults(text), re.M)
    return [text, *((CONF / f"{name}.yaml").read_text() for name in names if name != "_self_")]


def _defaults(text: str) -> str:
    match = re.search(DEFAULTS, text, re.M)
    return match[1] if match else ""


def _body(text: str) -> str:
    return re.sub(DEFAULTS, "", text, flags=re.M).split("\nhydra:")[0]


def options(group: str) -> list[Path]:
    """The files of a group's options, in conf/ or launch/; none if there is no such group."""
    return sorted([*(CONF / group).glob("*.yaml"), *(LAUNCH / group).glob("*.yaml")])


def group_names() -> list[str]:
    """All groups, in conf/ and launch/."""
    parents = {(root, path.parent) for root in (CONF, LAUNCH) for path in root.glob("*/**/*.yaml")}
    return sorted(str(folder.relative_to(root)) for root, folder in parents)


def setting_names(config: Path) -> set[str]:
    """Full names of all settings that a program's file and conf/ have."""
    names = {setting.name for text in _with_included(config) for setting in _settings(_body(text))}
    return names.union(*(_in_option(path, group) for group in group_names()
                         for path in options(group)))  # fmt: skip


def options_with(setting: str) -> list[str]:
    """The options of a group that have this setting, as typed: ``schedule=step``."""
    group = setting.partition(".")[0]
    return [f"{group}={path.stem}" for path in options(group) if setting in _in_option(path, group)]


def _in_option(path: Path, group: str) -> set[str]:
    """Full names of the settings in an option's file."""
    text = path.read_text()
    prefix = "" if "@package _global_" in text else f"{group.replace('/', '.')}."
    return {prefix + setting.name for setting in _settings(_body(text))}


def _settings(text: str) -> list[Setting]:
    """All settings of a YAML file; a nested one has its full name."""
    settings, parent = [], ""
    for line in text.splitlines():
        match = re.match(r"( *)([a-z]\w*):\s*([^#]*?)\s*(?:#\s*(.*))?$", line)
        if not match:
            continue
        indent, key, value, comment = match.groups()
        if not indent:
            parent = "" if value else f"{key}."
        if value:
            settings.append(Setting(f"{parent if indent else ''}{key}", value, comment or ""))
    return settings


def meant_setting(name: str, known: Collection[str]) -> str:
    """`` Did you mean 'x'?`` for a setting that does not exist; empty if no name is like it.

    Args:
        name: as typed, ``lr`` or ``optimizer.lr``.
        known: full names of all settings.
    """
    last = name.rpartition(".")[2]
    same = [full for full in known if full.rpartition(".")[2] == last]
    alias = ALIASES.get(last)
    meant = same or [full for full in known if full == alias]
    return f" Did you mean {' or '.join(map(repr, meant))}?" if meant else nearest(name, known)


def right_options(group: str, value: str, options: Collection[str]) -> str:
    """The options, none of which is ``value``, and the nearest of them."""
    listed = f"it must be one of {', '.join(options)}"
    kind = group.removesuffix(".name")
    if kind in ("optimizer", "model"):
        listed += f", or any {kind} of timm's: {kind}=timm {kind}.name={value}"
    return f"{listed}.{nearest(value, options)}"
