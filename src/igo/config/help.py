"""The text of --help: every group and setting with its comment, read from conf/."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from igo.ground.paths import CONF, LAUNCH

GROUPS = r"^  - (?:override (?=hydra/launcher))?([\w/]+): (\w+)"
LONGEST_NAME = 34  # characters before the second column
DEFAULTS = r"^defaults:\n((?:  .*\n)+)"


@dataclass(frozen=True)
class Setting:
    """One line ``key: value  # comment`` of a YAML file, its name in full."""

    name: str
    value: str
    comment: str


def summary(config: Path) -> str:
    """What a program does, in one line."""
    return _heading(config.read_text())


def help_text(program: str, config: Path, width: int = 0) -> str:
    """Explain a program and its settings.

    Args:
        program: what is typed to start it.
        config: the file of its defaults, such as conf/config.yaml.
        width: characters in a line, wrapped between words; 0: lines are not wrapped.
    """
    texts = _with_included(config)
    groups = [match for text in texts for match in re.findall(GROUPS, _defaults(text), re.M)]
    options = "[GROUP=OPTION] " if groups else ""
    lines = [
        _heading(texts[0]),
        "",
        f"usage: {program} {options}[SETTING=VALUE] ...   (-m sweeps: seed=0,1,2)",
        "       --cfg job prints the composed configuration, --hydra-help what Hydra itself offers",
        "",
        "Settings",
    ]
    for text in texts:
        body = re.sub(DEFAULTS, "", text, flags=re.M).split("\nhydra:")[0]
        lines += [_line(s.name, s.value, s.comment) for s in _settings(body)]
    for group, default in groups:
        lines += ["", f"{group}=…" + ("" if default == "null" else f"  (default: {default})")]
        lines += _group_lines(group)
    return "\n".join(_wrapped(line, width) for line in lines)


def _wrapped(line: str, width: int) -> str:
    """A line as several lines; those after the first are below its second column."""
    if not 0 < width < len(line):
        return line
    first = re.match(r" *\S+ *", line)
    indent = min(len(first[0]) if first else 0, LONGEST_NAME, width // 2)
    return textwrap.fill(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def _defaults(text: str) -> str:
    match = re.search(DEFAULTS, text, re.M)
    return match[1] if match else ""


def _with_included(config: Path) -> list[str]:
    """The text of a program's file, and of the configurations that it includes."""
    text = config.read_text()
    return [text, *((CONF / f"{name}.yaml").read_text() for name in _included(text))]


def _included(text: str) -> list[str]:
    """Whole configurations in a defaults list, by name: ``- config``."""
    return [name for name in re.findall(r"^  - (\w+)$", _defaults(text), re.M) if name != "_self_"]


def option_files(group: str) -> list[Path]:
    """The files of a group's options, in conf/ or launch/; none if there is no such group."""
    return sorted([*(CONF / group).glob("*.yaml"), *(LAUNCH / group).glob("*.yaml")])


def group_names() -> list[str]:
    """All groups, in conf/ and launch/."""
    parents = {(root, path.parent) for root in (CONF, LAUNCH) for path in root.glob("*/**/*.yaml")}
    return sorted(str(folder.relative_to(root)) for root, folder in parents)


def setting_names(config: Path) -> list[str]:
    """Full names of all settings that a program's file and conf/ explain."""
    names = []
    for text in _with_included(config):
        names += [s.name for s in _settings(re.sub(DEFAULTS, "", text, flags=re.M))]
    for group in group_names():
        for path in option_files(group):
            names += [s.name for s in _group_settings(path.read_text(), group)]
    return names


def options_with(setting: str) -> list[str]:
    """The options of a group that explain this setting, as typed: ``schedule=step``."""
    group, _, key = setting.partition(".")
    texts = {f.stem: f.read_text() for f in option_files(group)} if key else {}
    return [
        f"{group}={option}" for option, text in texts.items()
        if setting in [s.name for s in _group_settings(text, group)] and not _included(text)
    ]  # fmt: skip


def _group_lines(group: str) -> list[str]:
    """The options of a group, then each of their settings once with the options that have it.

    An option that builds on another has the settings of the other too.
    """
    texts = {path.stem: path.read_text() for path in option_files(group)}
    lines = [f"  {option:<26}{_heading(text)}" for option, text in texts.items()]
    if not any("@package _global_" in text for text in texts.values()):
        texts = {option: text for option, text in texts.items() if not _included(text)}
    comments: dict[str, str] = {}
    having: dict[str, list[str]] = {}
    for option, text in texts.items():
        for setting in _group_settings(text, group):
            having.setdefault(setting.name, []).append(option)
            comments[setting.name] = comments.get(setting.name) or setting.comment
    for name, options in having.items():
        where = "" if len(options) == len(texts) else f"[{', '.join(options)}] "
        lines.append(_line(f"  {name}", "", where + comments[name]))
    return lines


def _group_settings(text: str, group: str) -> list[Setting]:
    """An option's settings in its group; with ``@package _global_`` it has others too."""
    prefix = f"{group.replace('/', '.')}."
    if "@package _global_" in text:
        return [s for s in _settings(text) if s.name.startswith(prefix)]
    return _settings(text, prefix)


def _line(name: str, value: str, comment: str) -> str:
    typed = name + (f"={value}" if value else "")
    return f"  {typed:<31} {comment}".rstrip()


def _heading(text: str) -> str:
    lines = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    return next(line for line in lines if not line.startswith("@package"))


def _settings(text: str, prefix: str = "") -> list[Setting]:
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
            settings.append(
                Setting(f"{prefix}{parent if indent else ''}{key}", value, comment or "")
            )
    return settings
