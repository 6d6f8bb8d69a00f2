"""Refuses arguments of ``plan``, one by one and together, before anything is computed.

Errors name the cure.
"""

from collections.abc import Collection, Mapping
from numbers import Integral, Real
from typing import Any

from igo.ground.errors import nearest
from igo.ground.numbers import AT_LEAST_ONE, Rule, fault
from igo.plans.arguments import (
    ALIASES,
    CLOCKS,
    MOST_EPOCHS,
    NEEDED,
    RULES,
    TABLE,
    WHOLE,
    Algorithm3,
    Arguments,
    Named,
    PlanError,
    Table,
)
from igo.plans.profiles import (
    GAMMA,
    PROFILES,
    SPLITS,
    STAGES,
    Position,
    Profile,
    declared,
    name_of,
    parameters,
)


def checked(algorithm3: Algorithm3 | None, of_profile: Named, **values: Any) -> Arguments:
    """Refuse arguments of ``plan`` from which none can be made, before anything is computed.

    Raises:
        PlanError: an argument is wrong or missing.
    """
    profile_values, algorithm3_values = dict(of_profile), algorithm3 or {}
    if unknown_names := algorithm3_values.keys() - Algorithm3.__annotations__.keys():
        known_names = ", ".join(Algorithm3.__annotations__)
        raise PlanError("algorithm3", sorted(unknown_names), f"it has {known_names}")
    values |= algorithm3_values
    values["sizes"] = _sizes(values)
    _check_curves(values)
    if not callable(values["profile"]):
        if values["rate"]:
            _check_choice("rate", values["profile"], PROFILES)
        else:
            _check_choice("profile", values["profile"], (*PROFILES, *SPLITS))
        if values["profile"] in SPLITS:
            profile_values = _paper_method(values, profile_values)
    if values["split"] is None:
        values["split"] = 0.5  # Nothing reads it beside sizes or a rate.
    profile = values["profile"]
    notes = declared(profile)
    # `plan` takes the profile's arguments beside its own, so a name cannot be both.
    for name in sorted(notes.keys() & values.keys() - algorithm3_values.keys()):
        advice = f"its argument {name} is one of plan's, too; give it another name"
        raise PlanError("profile", name_of(profile), advice)
    _check_names(profile, profile_values, [*values, *notes])
    plain = {name: _plain(name, value, RULES.get(name)) for name, value in values.items()}
    # An argument without a range is for your own profile as it is.
    for name, value in profile_values.items():
        if choices := notes[name].choices:
            _check_choice(name, value, choices)
        else:
            profile_values[name] = _plain(name, value, notes[name].rule)
    arguments = Arguments(**plain, own=profile_values)
    _check_together(arguments)
    return arguments


def _check_curves(values: dict[str, Any]) -> None:
    """Refuse other than two of three curves; a rate takes the place of the profile."""
    profile, rate = values["profile"], values["rate"]
    has_curve_of_b = rate is not None or values["sizes"] is not None
    if profile is None and rate is None:
        advice = 'give the noise φ as profile ("constant": η ∝ √b), or η/η_1 as rate'
        raise PlanError("profile", None, advice)
    if profile is not None and rate is not None:
        advice = (
            "η/η_1 = φ √(b/b_1) follows from the others; keep two: profile and batch_size,"
            " or rate and batch_size"
        )
        raise PlanError("rate", name_of(rate), advice)
    if values["split"] is not None and has_curve_of_b:
        advice = (
            f"{'profile' if rate is None else 'rate'} and batch_size say how b grows; leave it out,"
            " or give a profile and a number as batch_size"
        )
        raise PlanError("split", values["split"], advice)
    values["profile"], values["rate"] = profile if rate is None else rate, rate is not None
    if values.get("h") is not None and has_curve_of_b:
        raise PlanError("h", values["h"], "Algorithm 3 has a profile and a split; leave it out")
    _check_choice("clock", values["clock"], CLOCKS)
    if values["clock"] == "updates" and (rate is None or values.get("final_updates")):
        advice = "b decides how many updates there are, so rate alone can count them"
        raise PlanError("clock", "updates", f"{advice}, without profile and final_updates")
    if values["clock"] == "updates" and rate == "step":
        raise PlanError(
            "clock", "updates", "step counts stages, and an update is none; leave it out"
        )


def _sizes(values: dict[str, Any]) -> Any:
    """The table, or the function, that was given as batch_size, which becomes b_1."""
    sizes = values["batch_size"]
    if callable(sizes):
        values["batch_size"] = sizes(Position(1, 1, 0.0))
        return sizes
    if isinstance(sizes, list | tuple):
        raise PlanError("batch_size", sizes, TABLE)
    if not isinstance(sizes, Mapping):
        return None
    table = table_of(sizes)
    values["batch_size"] = table[0]
    return table


def table_of(sizes: Mapping[Any, Any]) -> Table:
    """A table of b in plain numbers; one in samples is in order of its places.

    Raises:
        PlanError: it has no first size, another place than a share or samples, or no size.
    """
    if 0 not in sizes or not all(map(_is_place, sizes)):
        raise PlanError("batch_size", {**sizes}, TABLE)
    return {
        int(t) if t == 0 or isinstance(t, Integral) else float(t): _plain(
            "batch_size", sizes[t], AT_LEAST_ONE
        )
        for t in sorted(sizes)
    }


def _is_place(t: Any) -> bool:
    """Whether it is a share in [0, 1), or a whole number of samples."""
    is_share = isinstance(t, Real) and 0 <= float(t) < 1
    return is_share or (isinstance(t, Integral) and int(t) > 0)


def _paper_method(values: dict[str, Any], profile_values: Named) -> dict[str, Any]:
    """Set the arguments that the name of one of the paper's methods stands for; the profile's."""
    name = values["profile"]
    for argument, value in {
        "split": values["split"],
        "batch_size": values["sizes"],
        **profile_values,
    }.items():
        if value is not None:
            cure = "give b_1 alone" if argument == "batch_size" else "leave it out"
            raise PlanError(argument, value, f"{name} has its own decay and split; {cure}")
    values["split"] = SPLITS[name]
    if values["stages"] is None:
        values["stages"] = STAGES
    if name == "method1":
        values["profile"] = "constant"
        return {}
    values["profile"] = "step"
    return {"gamma": GAMMA}


def _check_choice(name: str, value: object, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        hint = nearest(str(value), choices)
        raise PlanError(name, value, f"it must be one of {', '.join(choices)}.{hint}")


def _check_names(
    profile: str | Profile, profile_values: Named, known_names: Collection[str]
) -> None:
    signature, label = parameters(profile), name_of(profile)
    for name, value in profile_values.items():
        if name not in signature:
            has = f"{label} has {', '.join(signature) or 'none'} of its own"
            hint = nearest(ALIASES.get(name, name), known_names)
            raise PlanError(name, value, f"there is no such argument; {has}.{hint}")
    for name, parameter in signature.items():
        if parameter.default is parameter.empty and profile_values.get(name) is None:
            example = declared(profile)[name].text or f"{name}=1"
            raise PlanError(name, None, f"{label} needs it, e.g. {example}")


def _plain(name: str, value: Any, rule: Rule | None) -> Any:
    """The value, checked; a number as Python's own, also if it was NumPy's."""
    if rule is None or (value is None and name not in NEEDED):
        return value
    # NumPy's numbers print in another way, and torch.load(weights_only=True) refuses them.
    is_whole = name in WHOLE
    if problem := fault(value, rule, is_whole):
        raise PlanError(name, value if isinstance(value, Real) else repr(value), problem)
    return int(value) if is_whole else float(value)


def _check_together(args: Arguments) -> None:
    """Refuse neither ``epochs`` with n nor ``samples``, and too few samples for the rest."""
    n, epochs, samples, total = args.n, args.epochs, args.samples, args.total
    b_1, b_max, stages = args.batch_size, args.max_batch_size, args.stages
    table = args.sizes if isinstance(args.sizes, Mapping) else {}
    sizes = [*args.thresholds.values()]
    warmup, most_samples = args.warmup_samples, min(args.per_epoch, total)
    is_constant = not args.sizes and (args.rate or args.profile == "constant")
    has_ratio, no_effect = args.batch_ratio != 1, f"b stays at batch_size={b_1}; leave it out"
    for argument, is_wrong, advice in (
        ("epochs", not (epochs or samples), "say how long to train: epochs with n, or samples"),
        ("samples", epochs and samples, f"epochs={epochs} says that too; leave one out"),
        ("n", not (n or samples), "give the training samples; for a stream give samples instead"),
        ("samples", n and total > n * MOST_EPOCHS, f"at most {MOST_EPOCHS:,} epochs of n={n}"),
        (
            "batch_size",
            max(sizes) > most_samples,
            f"it must be in [1, {most_samples}], the training samples",
        ),
        (
            "batch_size",
            n is None and any(b % args.batch_multiple for b in sizes),
            f"it must be a multiple of batch_multiple={args.batch_multiple}",
        ),
        (
            "batch_size",
            sizes != sorted(sizes),
            "b never shrinks, so its sizes may not fall",
        ),
        (
            "batch_size",
            max(args.thresholds) >= total,
            f"a size begins after all {total:,} samples of the plan",
        ),
        (
            "batch_size",
            any(1 <= t <= min(epochs or 0, most_samples) for t in table),
            f"its places are samples, of which an epoch has {n}, or shares below 1",
        ),
        ("batch_ratio", table and has_ratio, "a table has all sizes; leave it out"),
        ("batch_ratio", is_constant and has_ratio, no_effect),
        ("max_batch_size", is_constant and b_max, no_effect),
        (
            "max_batch_size",
            b_max and b_max < max(sizes),
            f"it must be at least batch_size={max(sizes)}",
        ),
        (
            "stages",
            stages and stages * b_1 > total,
            f"{total} samples have at most {total // b_1} stages with a batch of {b_1} each",
        ),
        ("warmup_samples", warmup >= total, f"it must be below the {total} samples of the plan"),
        (
            "warmup_samples",
            0 < warmup <= b_1,
            f"it ends within the first batch, of {b_1} samples, and does nothing",
        ),
    ):
        if is_wrong:
            value = table if table and argument == "batch_size" else getattr(args, argument)
            raise PlanError(argument, value, advice)
