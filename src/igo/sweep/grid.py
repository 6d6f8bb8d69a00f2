"""All combinations of a grid of settings, as Hydra's command lines."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from igo.ground.errors import UserError


def combinations(
    parser: OverridesParser, grid: Mapping[str, Any], arguments: Sequence[str]
) -> list[list[str]]:
    """A list of overrides for each combination of values. The last setting changes fastest.

    Args:
        parser: Hydra's.
        grid: for each setting a value, a list of values, or Hydra's ``range(5)``.
        arguments: overrides as typed; they replace settings of the grid.
    """
    lines = [f"{name}={_listed(value)}" for name, value in grid.items()]
    choices = {
        override.get_key_element(): _values(override)
        for override in parser.parse_overrides([*lines, *arguments])
    }
    return [list(combination) for combination in itertools.product(*choices.values())]


def _listed(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return "null" if value is None else str(value)
    return ",".join(map(_listed, value))


def _values(override: Override) -> list[str]:
    """An override for each value of one override."""
    name = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{name}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line}: a grid needs single values or range(…), not an interval"
        )
    return [f"{name}={value}" for value in override.sweep_string_iterator()]
