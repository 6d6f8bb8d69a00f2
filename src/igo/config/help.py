"""The text of --help, read from the files in conf/ and their comments."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from igo.ground.paths import CONF, LAUNCH

GROUP = re.compile(r"^  - (?:override (?=hydra/launcher))?([\w/]+): (\w+)", re.MULTILINE)
DEFAULTS = re.compile(r"^defaults:\n(?:  .*\n)+\n?", re.MULTILINE)
SETTING = re.compile(r"( *)([a-z]\w*):\s*([^#]*?)\s*(?:#\s*(.*))?")
SECOND_COLUMN = 26  # characters before it


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
    settings = settings_in(config)
    if topic:
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
