"""A model, an optimizer and a noise profile of the user's own, by ``_target_`` as in Hydra.

``model._target_=my_model.MyCNN model.width=8`` is kept as ``name: my_model.MyCNN`` and
``arguments: {width: 8}``. Hydra makes what has a ``_target_`` within the arguments.
"""

import inspect
import pkgutil
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from pprint import pformat
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from igo.ground.errors import ConfigError, UserError, first_line, nearest, require
from igo.ground.files import seal_of
from igo.plans.profiles import PROFILES

# What GROUP=own begins with: settings that may have any name.
ConfigStore.instance().store(name="free", node=DictConfig({}, flags={"struct": False}))
# The settings that may be a target, by their groups.
NAMES = {"model": "name", "optimizer": "name", "schedule": "profile"}
CURVES = (*PROFILES, "own")  # What schedule.rate may be.
MAY_BE_NULL = ("experiment", "sweep", "debug")  # These groups have no option unless one is typed.


def with_options(words: Sequence[str]) -> list[str]:
    """The words of a command line, with the options of groups that they imply.

    ``model._target_=…`` implies ``model=own``, of which Hydra takes any setting. The curve
    ``schedule.rate=cosine`` implies ``schedule=cosine``, which has its settings. A typed option
    stays. ``experiment=null`` is left out: Hydra refuses it.

    Raises:
        ConfigError: ``schedule.rate`` is no curve.
    """
    values = dict(word.split("=", 1) for word in words if "=" in word)
    null_groups = [group for group in MAY_BE_NULL if values.get(group) == "null"]
    words = [word for word in words if word.partition("=")[0] not in null_groups]
    options = {group: "own" for group in NAMES if f"{group}._target_" in values}
    rate = values.get("schedule.rate", "null")
    # Several rates are a sweep's, and the words of each run come here, too.
    if rate != "null" and "," not in rate:
        # Hydra would name the group of the option, which nobody typed.
        advice = f"it must be one of {', '.join(CURVES)}.{nearest(rate, CURVES)}"
        require(rate in CURVES, "schedule.rate", rate, advice)
        options.setdefault("schedule", rate)
    return [*words, *(f"{group}={name}" for group, name in options.items() if group not in values)]


def split_arguments(values: dict[str, Any], of_schedules: Collection[str]) -> None:
    """In each group with a target make it the name, and what is left its arguments.

    ``of_schedules`` are settings of every schedule, which are no arguments of a profile.

    Raises:
        ConfigError: the target is not there, or does not take the arguments.
    """
    for group, name in NAMES.items():
        arguments = values.get(group)
        if not isinstance(arguments, dict) or "_target_" not in arguments:
            continue
        target = arguments.pop("_target_")
        kept_names = of_schedules if group == "schedule" else ()
        kept_settings = {key: arguments.pop(key) for key in kept_names if key in arguments}
        _check_call(group, target, arguments)
        values[group] = {**kept_settings, name: target, "arguments": arguments}


def as_call(name: str, arguments: Mapping[str, Any] | None) -> str:
    """A target with its arguments, ``my_model.MyCNN(width=8)``; a name without any as it is.

    People read it, and a run is named after it. So arguments are sorted, and pformat sorts the
    dictionaries in them: typed in another order, it is the same run.
    """
    if arguments is None:
        return name
    items = sorted(arguments.items())
    return f"{name}({', '.join(f'{key}={pformat(x, width=sys.maxsize)}' for key, x in items)})"


def _check_call(group: str, target: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a target that is not there, or does not take the arguments; nothing is called yet."""
    # igo passes the parameters and lr to an optimizer, and the position to a profile.
    positional: dict[str, list[object]] = {"model": [], "optimizer": [[]], "schedule": [0.0]}
    rate = {"lr": 0.1} if group == "optimizer" else {}
    with reported(group, target, arguments):
        inspect.signature(object_of(target)).bind(*positional[group], **arguments, **rate)


def made_by(
    group: str,
    target: str,
    arguments: Mapping[str, Any],
    kind: type,
    *positional: object,
    **keywords: object,
) -> Any:
    """What a target returns, called with ``positional``, its own arguments and ``keywords``.

    Raises:
        ConfigError: the target raised an error, or returned something that is no ``kind``.
    """
    with reported(group, target, arguments):
        values = arguments
        if "_target_" in str(arguments):  # A plan calls a profile thousands of times without one.
            values = instantiate(arguments, _convert_="all")
        product = object_of(target)(*positional, **values, **keywords)
        if not isinstance(product, kind):
            raise TypeError(f"it makes a {type(product).__name__}, and no {kind.__name__}")
        return product


def object_of(target: str) -> Any:
    """The class or function that a target names, in a package or in the current folder."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # It comes last: a file here hides no installed package.
    return pkgutil.resolve_name(target)


@contextmanager
def reported(group: str, target: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Turn an error of the user's own code into a line with the target and the place in it."""
    try:
        yield
    except UserError:
        raise
    except Exception as raised:
        # Hydra wraps what a `_target_` within the arguments raised.
        inner = raised.__cause__ if isinstance(raised, InstantiationException) else None
        error: Any = inner or raised
        problem = f"{type(error).__name__}: {first_line(error)}{line_of(error, target)}"
        raise ConfigError(f"{group}._target_", as_call(target, arguments), problem) from None


def line_of(error: Exception, target: str) -> str:
    """``" (my_model.py, line 7)"``, where an error left the package of a target; else nothing."""
    package, line_text = target.partition(".")[0], ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package:
            line_text = f" ({Path(frame.f_code.co_filename).name}, line {line})"
    return line_text


def file_digest(call: str) -> str | None:
    """Ten digits of the SHA-256 of the file with a call's target; None if there is none.

    What that file imports is not in it.
    """
    with suppress(TypeError, OSError, ImportError, AttributeError):
        file = inspect.getsourcefile(inspect.unwrap(object_of(call.partition("(")[0])))
        return seal_of(Path(file or "").read_bytes())[:10]
    return None
