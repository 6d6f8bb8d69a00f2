"""What --help prints: the files of settings with their comments, and the options of each group."""

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from igo.config.rules import right_options
from igo.ground.errors import require
from igo.ground.files import CONF, LAUNCH

# A line of the defaults: a group and its option.
GROUP = re.compile(r"^  - (?:override (?=hydra/launcher))?([\w/]+): (\w+)", re.MULTILINE)
DEFAULTS = re.compile(r"^defaults:\n(?:  .*\n)+\n?", re.MULTILINE)


def help_text(program: str, config: Path, topic: str) -> str:
    """Explain a program by the comments in the file of its defaults, and the options of each group.

    With a group of settings as ``topic``: by its files; with ``all``: by those of all groups.
    """
    source = config.read_text()
    defaults: dict[str, str] = dict(GROUP.findall(source))  # The option of each group
    text = DEFAULTS.sub("", source).partition("\nhydra:")[0]
    if topic:
        return _of_topic(text, topic, defaults)
    if program.startswith("igo "):
        text = text.replace("python src/train.py", program)
    arguments = "[GROUP=OPTION] [SETTING=VALUE]" if defaults else "[SETTING=VALUE]"
    lines = [f"usage: {program} {arguments} ...\n", text]
    for group, default in defaults.items():
        choice, names = f"{group}={default}", [option.stem for option in options(group)]
        lines.append(f"{choice:<22}# {', '.join(names)}")
    return "\n".join(lines)


def _of_topic(text: str, topic: str, groups: Iterable[str]) -> str:
    """The part of a program's text on a group, then its files; all of both with ``all``."""
    topics = ["all", *group_names()]
    require(topic in topics, "--help", topic, right_options("--help", topic, topics))
    if topic != "all":
        groups = [topic]
        text = "".join(re.findall(rf"^{topic}:.*\n(?:  .*\n)*", text, re.MULTILINE))
    for group in groups:
        for path in options(group):
            text += f"\n--- {group}={path.stem}\n{DEFAULTS.sub('', path.read_text())}"
    return text


def settings_in(file: Path) -> set[str]:
    """The names of the settings in a YAML file, such as ``p`` and ``noise.batches``."""
    names = list[str]()
    for name, value in (yaml.safe_load(file.read_text()) or {}).items():
        names += [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name]
    return {*names} - {"defaults"}


def options(group: str) -> list[Path]:
    """The files of a group's options, in conf/ or launch/; none if there is no such group."""
    return sorted([*(CONF / group).glob("*.yaml"), *(LAUNCH / group).glob("*.yaml")])


def group_names() -> list[str]:
    """All groups, in conf/ and launch/."""
    files = [path.relative_to(root) for root in (CONF, LAUNCH) for path in root.glob("*/**/*.yaml")]
    return sorted({str(file.parent) for file in files})
