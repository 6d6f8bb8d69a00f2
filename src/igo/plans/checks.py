"""Refuses wrong arguments of ``plan`` before anything is computed; errors name the cure."""

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
    """The arguments of ``plan`` in plain numbers.

    Raises:
        PlanError: an argument is wrong or missing, or does not go with the others.
    """
    of_algorithm3 = algorithm3 or {}
    if unknown_names := of_algorithm3.keys() - Algorithm3.__annotations__.keys():
        known_names = ", ".join(Algorithm3.__annotations__)
        raise PlanError("algorithm3", sorted(unknown_names), f"it has {known_names}")
    values["batch_size"], values["sizes"] = _batch_sizes(values["batch_size"])
    names_of_plan = [*values]
    values |= of_algorithm3
    _check_curves(values)
    by_rate, own = values["rate"] is not None, dict(of_profile)
    profile = values["rate"] if by_rate else values["profile"]
    if not callable(profile):
        choices = [*PROFILES] if by_rate else [*PROFILES, *SPLITS]
        _check_choice("rate" if by_rate else "profile", profile, choices)
        if profile in SPLITS:
            _check_paper_method(profile, values, own)
            values["split"] = SPLITS[profile]
            if values["stages"] is None:
                values["stages"] = STAGES
            is_constant = profile == "method1"
            profile, own = ("constant", {}) if is_constant else ("step", {"gamma": GAMMA})
    if values["split"] is None:
        values["split"] = 0.5  # Nothing reads it beside sizes or a rate.
    values |= {"profile": profile, "rate": by_rate}
    notes = declared(profile)
    # `plan` takes the profile's arguments beside its own, so a name cannot be both.
    for name in sorted(notes.keys() & names_of_plan):
        advice = f"its argument {name} is one of plan's, too; give it another name"
        raise PlanError("profile", name_of(profile), advice)
    _check_names(profile, own, [*values, *notes])
    plain = {name: _plain(name, value, RULES.get(name)) for name, value in values.items()}
    # An argument without a range is for your own profile as it is.
    for name, value in own.items():
        if notes[name].choices:
            _check_choice(name, value, notes[name].choices)
        else:
            own[name] = _plain(name, value, notes[name].rule)
    arguments = Arguments(**plain, own=own)
    _check_lengths(arguments)
    _check_sizes(arguments)
    return arguments


def _batch_sizes(batch_size: Any) -> tuple[Any, Any]:
    """b_1, and the function or the table of b if ``batch_size`` is one."""
    if callable(batch_size):
        return batch_size(Position(1, 1, 0.0)), batch_size
    if isinstance(batch_size, Mapping):
        table = table_of(batch_size)
        return table[0], table
    if isinstance(batch_size, list | tuple):
        raise PlanError("batch_size", batch_size, TABLE)
    return batch_size, None


def table_of(sizes: Mapping[Any, Any]) -> Table:
    """A table of b in plain numbers, in order of its places.

    Raises:
        PlanError: it has no first size, another place than a share or samples, or no size.
    """
    if 0 not in sizes or not all(map(_is_place, sizes)):
        raise PlanError("batch_size", {**sizes}, TABLE)
    table = {}
    for place in sorted(sizes):
        is_samples = place == 0 or isinstance(place, Integral)
        size = _plain("batch_size", sizes[place], AT_LEAST_ONE)
        table[int(place) if is_samples else float(place)] = size
    return table


def _is_place(place: Any) -> bool:
    """Whether it is a share in [0, 1), or a whole number of samples."""
    is_share = isinstance(place, Real) and 0 <= float(place) < 1
    return is_share or (isinstance(place, Integral) and int(place) > 0)


def _check_curves(values: Named) -> None:
    """Refuse other than two of three curves: the noise φ, the rate η/η_1, and b."""
    profile, rate, clock = values["profile"], values["rate"], values["clock"]
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
    if values.get("h") is not None and has_curve_of_b:
        raise PlanError("h", values["h"], "Algorithm 3 has a profile and a split; leave it out")
    _check_choice("clock", clock, CLOCKS)
    if clock == "updates" and (rate is None or values.get("final_updates")):
        advice = (
            "b decides how many updates there are, so rate alone can count them, without profile"
            " and final_updates"
        )
        raise PlanError("clock", clock, advice)
    if clock == "updates" and rate == "step":
        advice = "step counts stages, and an update is none; leave it out"
        raise PlanError("clock", clock, advice)


def _check_paper_method(method: str, values: Named, own: Named) -> None:
    """Refuse arguments that a method of the paper has itself."""
    refused = {"split": values["split"], "batch_size": values["sizes"], **own}
    for name, value in refused.items():
        if value is not None:
            cure = "give b_1 alone" if name == "batch_size" else "leave it out"
            raise PlanError(name, value, f"{method} has its own decay and split; {cure}")


def _check_choice(name: str, value: object, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        hint = nearest(str(value), choices)
        raise PlanError(name, value, f"it must be one of {', '.join(choices)}.{hint}")


def _check_names(profile: str | Profile, own: Named, known_names: Collection[str]) -> None:
    """Refuse arguments that the profile does not have, and a profile that lacks one."""
    signature, label = parameters(profile), name_of(profile)
    for name, value in own.items():
        if name not in signature:
            has = f"{label} has {', '.join(signature) or 'none'} of its own"
            hint = nearest(ALIASES.get(name, name), known_names)
            raise PlanError(name, value, f"there is no such argument; {has}.{hint}")
    for name, parameter in signature.items():
        if parameter.default is parameter.empty and own.get(name) is None:
            example = declared(profile)[name].text or f"{name}=1"
            raise PlanError(name, None, f"{label} needs it, e.g. {example}")


def _plain(name: str, value: Any, rule: Rule | None) -> Any:
    """The value, checked; a number as Python's own, also if it was NumPy's.

    NumPy's numbers print in another way, and torch.load(weights_only=True) refuses them.
    """
    if rule is None or (value is None and name not in NEEDED):
        return value
    is_whole = name in WHOLE
    if problem := fault(value, rule, is_whole):
        raise PlanError(name, value if isinstance(value, Real) else repr(value), problem)
    return int(value) if is_whole else float(value)


def _check_lengths(args: Arguments) -> None:
    """Refuse a plan without a length, or with two of them; and too many epochs."""
    n, epochs, samples = args.n, args.epochs, args.samples
    if not (epochs or samples):
        advice = "say how long to train: epochs with n, or samples"
        raise PlanError("epochs", epochs, advice)
    if epochs and samples:
        raise PlanError("samples", samples, f"epochs={epochs} says that too; leave one out")
    if not (n or samples):
        advice = "give the training samples; for a stream give samples instead"
        raise PlanError("n", n, advice)
    if n and args.total > n * MOST_EPOCHS:
        raise PlanError("samples", samples, f"at most {MOST_EPOCHS:,} epochs of n={n}")


def _check_sizes(args: Arguments) -> None:
    """Refuse sizes of batches that cannot be or have no effect, and what is too short for them."""
    n, total, warmup, multiple = args.n, args.total, args.warmup_samples, args.batch_multiple
    b_1, b_max, stages = args.batch_size, args.max_batch_size, args.stages
    table = args.sizes if isinstance(args.sizes, Mapping) else {}
    starts, sizes = [*args.thresholds], [*args.thresholds.values()]
    most_samples = min(args.per_epoch, total)
    is_b_constant = not args.sizes and (args.rate or args.profile == "constant")
    for argument, is_wrong, advice in (
        (
            "batch_size",
            max(sizes) > most_samples,
            f"it must be in [1, {most_samples}], the training samples",
        ),
        (
            "batch_size",
            n is None and any(size % multiple for size in sizes),
            f"it must be a multiple of batch_multiple={multiple}",
        ),
        ("batch_size", sizes != sorted(sizes), "b never shrinks, so its sizes may not fall"),
        (
            "batch_size",
            max(starts) >= total,
            f"a size begins after all {total:,} samples of the plan",
        ),
        (
            "batch_size",
            any(1 <= place <= min(args.epochs or 0, most_samples) for place in table),
            f"its places are samples, of which an epoch has {n}, or shares below 1",
        ),
        (
            "batch_ratio",
            table and args.batch_ratio != 1,
            "a table has all sizes; leave it out",
        ),
        (
            "batch_ratio",
            is_b_constant and args.batch_ratio != 1,
            f"b stays at batch_size={b_1}; leave it out",
        ),
        ("max_batch_size", is_b_constant and b_max, f"b stays at batch_size={b_1}; leave it out"),
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
