"""Settings as annotated fields of a class: their declarations and their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, make_dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple, get_origin, get_type_hints

from igo.method.profiles import parameters
from igo.method.ranges import Declared, declared


class Setting(NamedTuple):
    """A setting as it is declared; ``default`` is MISSING if it has none."""

    kind: Any
    default: Any
    notes: Declared  # its text is the name in tables


def settings_of(owner: type, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """The settings of a class and of the classes in it, by full name."""
    kinds, annotated = get_type_hints(owner), get_type_hints(owner, include_extras=True)
    for field in fields(owner):
        kind = kinds[field.name]
        if is_dataclass(kind):
            yield from settings_of(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            default = [] if field.default_factory is list else field.default
            yield prefix + field.name, Setting(kind, default, declared(annotated[field.name]))


def value_of(config: object, setting: str) -> Any:
    """The value behind a full name such as ``schedule.gamma``."""
    return reduce(getattr, setting.split("."), config)


def with_settings_of(base: type, functions: Iterable[Callable[..., Any]]) -> Any:
    """The class with the keyword arguments of functions as further fields, null by default."""
    kinds: dict[str, Any] = {}
    for function in functions:
        hints = get_type_hints(function)
        for name in parameters(function).keys() - {field.name for field in fields(base)}:
            kinds[name] = (str if get_origin(hints[name]) is Literal else hints[name]) | None
    more = [(name, kind, None) for name, kind in sorted(kinds.items())]
    extended = make_dataclass(base.__name__.lstrip("_"), more, bases=(base,))
    extended.__module__ = base.__module__  # where pickle looks for it
    return extended
