"""How settings are declared, as annotated fields of a class, and read from it and its objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass, make_dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple, get_origin, get_type_hints

from igo.method.profiles import parameters
from igo.method.ranges import Declared, declared


class Setting(NamedTuple):
    """A setting as it is declared; ``default`` is MISSING where it has none."""

    kind: Any
    default: Any
    notes: Declared  # its text is what tables call it


def settings_of(of: type, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """The settings of a class, those of the classes in it included, by full name."""
    kinds, noted = get_type_hints(of), get_type_hints(of, include_extras=True)
    for one in fields(of):
        kind = kinds[one.name]
        if is_dataclass(kind):
            yield from settings_of(kind, f"{prefix}{one.name}.")  # type: ignore[arg-type]
        else:
            default = [] if one.default_factory is list else one.default
            yield prefix + one.name, Setting(kind, default, declared(noted[one.name]))


def value_of(config: object, setting: str) -> Any:
    """The value behind a full name such as ``schedule.gamma``."""
    return reduce(getattr, setting.split("."), config)


def with_settings_of(base: type, functions: Iterable[Callable[..., Any]]) -> Any:
    """The class with the keyword arguments of functions as further fields.

    They are null where the chosen function does not have them.
    """
    found: dict[str, Any] = {}
    for function in functions:
        types = get_type_hints(function)
        for name in parameters(function).keys() - {one.name for one in fields(base)}:
            kind = types[name]
            found[name] = (str if get_origin(kind) is Literal else kind) | None
    rest = [(name, kind, None) for name, kind in sorted(found.items())]
    made = make_dataclass(base.__name__.lstrip("_"), rest, bases=(base,))
    made.__module__ = base.__module__  # where pickle looks for it
    return made
