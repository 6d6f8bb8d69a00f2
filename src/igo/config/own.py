"""A model, an optimizer and a noise profile of the user's own, by ``_target_`` as in Hydra.

``model._target_=my_model.MyCNN model.width=8`` is kept as the name of the model, written as a call:
``my_model.MyCNN(width=8)``. Hydra makes what has a ``_target_`` within its arguments.
"""

import ast
import hashlib
import inspect
import math
import pkgutil
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from pprint import pformat
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from igo.ground.errors import ConfigError, UserError, first_line, nearest

NAMES = {"model": "name", "optimizer": "name", "schedule": "profile"}  # settings that may be calls


def with_options(words: Sequence[str]) -> list[str]:
    """A command line that chooses GROUP=own where ``GROUP._target_`` is typed and no option is.

    Hydra takes any setting of this option. ``schedule.rate=cosine`` chooses ``schedule=cosine``,
    whose settings are those of the curve.
    """
    typed = dict(word.split("=", 1) for word in words if "=" in word)
    chosen = {group: "own" for group in NAMES if f"{group}._target_" in typed}
    rate = typed.get("schedule.rate", "null")
    if rate != "null" and "," not in rate:  # of a sweep, each run's line comes here as well
        chosen.setdefault("schedule", rate)
    return [*words, *(f"{group}={name}" for group, name in chosen.items() if group not in typed)]


def as_calls(values: dict[str, Any], of_schedules: Collection[str]) -> None:
    """In each group with a target, put the call in place of the target and its arguments.

    ``of_schedules`` are settings of every schedule, which are no arguments of a profile.

    Raises:
        ConfigError: the target is not there, or does not take the arguments.
    """
    for group, name in NAMES.items():
        settings = values.get(group)
        if isinstance(settings, dict) and "_target_" in settings:
            target, kept = settings.pop("_target_"), {}
            if group == "schedule":
                kept = {key: settings.pop(key) for key in of_schedules if key in settings}
            # The call is part of the run's name. So arguments are sorted, and pformat sorts the
            # dictionaries in them: typed in another order, it is the same run.
            arguments = [
                f"{key}={pformat(value, width=sys.maxsize)}"
                for key, value in sorted(settings.items())
            ]
            call = f"{target}({', '.join(arguments)})"
            _check(group, call)
            values[group] = {**kept, name: call}


def is_call(name: str) -> bool:
    """Whether a name is such a call."""
    return name.endswith(")")


def _check(group: str, call: str) -> None:
    """Look for a call's targets, and whether they take the arguments; nothing is called yet."""
    # What igo passes beside them: an optimizer gets the parameters and lr, a profile the position.
    given: dict[str, list[object]] = {"model": [], "optimizer": [[]], "schedule": [0.0]}
    rate = {"lr": 0.1} if group == "optimizer" else {}
    with reported(group, call):
        target, arguments = read(call)
        signature = inspect.signature(find(target))
        for inner in re.findall(r"'_target_': '([^']+)'", call):
            find(inner)
        try:
            signature.bind(*given[group], **arguments, **rate)
        except TypeError as error:
            raise TypeError(f"{error}; it takes {', '.join(signature.parameters)}") from None


def made_by(group: str, call: str, kind: type, *given: object, **named: object) -> Any:
    """What a call with these further arguments makes; its errors are ConfigErrors."""
    with reported(group, call):
        target, arguments = read(call)
        make = find(target)
        for key, value in arguments.items():
            if "_target_" in repr(value):
                arguments[key] = instantiate(value, _convert_="all")
        made = make(*given, **arguments, **named)
        if not isinstance(made, kind):
            raise TypeError(f"it makes a {type(made).__name__}, and no {kind.__name__}")
        return made


def find(target: str) -> Any:
    """The class or function that a target names, in a package or in the current folder."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file here hides no installed package
    return pkgutil.resolve_name(target)


def read(call: str) -> tuple[str, dict[str, Any]]:
    """Target and arguments of a call. Arguments are literals, so reading them runs no code."""
    target, _, given = call.partition("(")
    # Only the arguments are parsed: `_` stands in the place of the target.
    tree: Any = _Infinity().visit(ast.parse(f"_({given}", mode="eval")).body
    return target, {each.arg: ast.literal_eval(each.value) for each in tree.keywords}


class _Infinity(ast.NodeTransformer):
    """Python writes infinity as a name, which is no literal."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(math.inf) if node.id == "inf" else node


@contextmanager
def reported(group: str, call: str) -> Iterator[None]:
    """Turn an error of the user's own code into a line with the target and the place in it."""
    try:
        yield
    except Exception as raised:
        if isinstance(raised, UserError):
            raise
        # Hydra wraps what a `_target_` within the arguments raised.
        inner = raised.__cause__ if isinstance(raised, InstantiationException) else None
        error: Any = inner or raised
        more = line_of(error, call)
        if isinstance(error, ModuleNotFoundError):
            more += f"; neither installed nor in the current folder, {Path.cwd()}"
        if isinstance(error, AttributeError):
            more += "." + nearest(str(error.name), dir(error.obj))
        said = f"{type(error).__name__}: {first_line(error)}{more}"
        raise ConfigError(f"{group}._target_", call, said) from None


def line_of(error: Exception, call: str) -> str:
    """``" (my_model.py, line 7)"``, where an error left the package of a call; else nothing."""
    package, place = call.partition(".")[0], ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package:
            place = f" ({Path(frame.f_code.co_filename).name}, line {line})"
    return place


def digest(call: str) -> str | None:
    """Ten digits of the SHA-256 of the file with a call's target; None if there is none.

    What that file imports is not in it.
    """
    with suppress(TypeError, OSError, ImportError, AttributeError):
        file = inspect.getsourcefile(inspect.unwrap(find(call.partition("(")[0])))
        return hashlib.sha256(Path(file or "").read_bytes()).hexdigest()[:10]
    return None
