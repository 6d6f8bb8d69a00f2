"""Checks the arguments of ``plan``, one by one and together; errors name the cure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from igo.ground.errors import nearest
from igo.method.batches import PUBLISHED
from igo.method.methods import GAMMA, SPLITS, STAGES
from igo.method.profiles import PROFILES, Profile, declared, name_of, parameters
from igo.method.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Rule, within

LENGTHS = ("equal", "algorithm3")
MOST_EPOCHS = 1_000_000  # the record has a line for each
RAMP = "ramp"  # the profile that follows from batch sizes by samples

RULES: dict[str, Rule] = {
    "n": AT_LEAST_ONE,
    "epochs": within(1, MOST_EPOCHS),
    "samples": AT_LEAST_ONE,
    "learning_rate": POSITIVE,
    "batch_size": AT_LEAST_ONE,
    "split": (
        lambda s: 0 <= s <= 1,
        "it must be in [0, 1]: 1 = all of the decay in the learning rate, 0 = all in the batch",
    ),
    "stages": AT_LEAST_ONE,
    "warmup": NOT_NEGATIVE,
    "switch": (lambda t: 0 <= t < 1, "it is a share of the schedule and must be in [0, 1)"),
    "max_batch_size": AT_LEAST_ONE,
    "batch_multiple": AT_LEAST_ONE,
    "noise_exponent": (
        lambda r: 0 < r <= 1,
        "ρ of δ = η C b^(-ρ) must be in (0, 1]; with ρ = 0 the batch size has no effect on the"
        " noise, and cannot carry its decay: use split=1, with any ρ",
    ),
    "h": NOT_NEGATIVE,
    "epsilon": POSITIVE,
    "alpha_0": POSITIVE,
    "final_updates": within(0, MOST_EPOCHS),
}
WHOLE = ("n", "epochs", "samples", "batch_size", "stages", "max_batch_size", "batch_multiple",
         "final_updates")  # fmt: skip


class PlanError(ValueError):
    """An argument of ``plan`` from which no plan can be made.

    Attributes: ``argument``, its name, or ``plan`` for all of them; ``value``, None if it is
    missing; ``allowed``, which values are right.
    """

    def __init__(self, argument: str, value: object, allowed: str) -> None:
        self.argument, self.value, self.allowed = argument, value, allowed
        fault = " is missing" if value is None else f"={value} is not allowed"
        super().__init__(allowed if argument == "plan" else f"{argument}{fault}: {allowed}")


class PlanWarning(UserWarning):
    """A plan that can be trained, but is perhaps not what the user meant."""


def by_name(
    given: Mapping[str, Any], of_profile: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Replace the name of one of the paper's methods by its arguments; else fill in the split."""
    name, split, stages = given["profile"], given["split"], given["stages"]
    if not isinstance(name, str) or name not in SPLITS:
        return {**given, "split": 0.5 if split is None else split}, {**of_profile}
    for argument, value in {"split": split, **of_profile}.items():
        if value is not None:
            raise PlanError(argument, value, f"{name} has its own decay and split; leave it out")
    if SPLITS[name] < 1 and given["noise_exponent"] != PUBLISHED:
        allowed = f'{name} is for ρ = 1/2; for another ρ use profile="step", gamma= and split='
        raise PlanError("noise_exponent", given["noise_exponent"], allowed)
    meant = {"split": SPLITS[name], "stages": STAGES if stages is None else stages}
    gamma = {} if name == "method1" else {"gamma": GAMMA}
    return {**given, **meant, "profile": "step" if gamma else "constant"}, gamma


def check(given: Mapping[str, Any], of_profile: Mapping[str, Any]) -> None:
    """Refuse arguments from which no plan can be made, before anything is computed."""
    profile = given["profile"]
    _check_profile(profile, given["batch_size"])
    notes = {} if profile == RAMP else declared(profile)
    rules = {**RULES, **{name: note.rule for name, note in notes.items() if note.rule}}
    choices: dict[str, tuple[str, ...]] = {"lengths": LENGTHS}
    choices |= {name: note.choices for name, note in notes.items() if note.choices}
    _check_names(profile, of_profile, [*given, *notes])
    for name, value in {**given, **of_profile}.items():
        if name in choices:
            _check_choice(name, value, choices[name])
        elif name in rules and value is not None and not (name == "batch_size" and profile == RAMP):
            _check_number(name, value, rules[name])
    _check_length(given)


def cast(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Turn numbers of NumPy and the like into Python's, and whole numbers into int."""

    def plain(name: str, value: Any) -> Any:
        if value is None or isinstance(value, (bool, str)) or callable(value):
            return value
        return int(value) if name in WHOLE else float(value)

    return {name: plain(name, value) for name, value in arguments.items()}


def check_sizes(n: int, total: int, given: Mapping[str, Any]) -> None:
    """Refuse batches and stages for which there are too few samples."""
    b_1, b_max, stages = given["batch_size"], given["max_batch_size"], given["stages"]
    samples = min(n, total)
    if b_1 > samples:
        raise PlanError("batch_size", b_1, f"it must be in [1, {samples}], the training samples")
    if b_max is not None and b_max < b_1:
        raise PlanError("max_batch_size", b_max, f"it must be at least batch_size={b_1}")
    if stages is not None and stages * b_1 > total:
        allowed = f"{total} samples have at most {total // b_1} stages with a batch of {b_1} each"
        raise PlanError("stages", stages, allowed)
    if given["warmup"] >= total:
        allowed = f"it must be below the {total} samples of the plan, or a share of them below 1"
        raise PlanError("warmup", given["warmup"], allowed)


def check_warmup(warmup: float, samples: int, first: int, n: int | None) -> None:
    """Refuse a warm-up of ``samples`` within the first batch, of ``first``: it has no effect."""
    if warmup > 0 and samples <= first:
        epochs = f" ({warmup:g} epochs are {warmup:g} * n = {warmup * n:g})" if n else ""
        allowed = (
            f"it ends within the first batch, of {first}, and would do nothing; it is in samples"
            f"{epochs if warmup >= 1 else ''}, or below 1 a share of all samples"
        )
        raise PlanError("warmup", warmup, allowed)


def as_number(phi: Any, profile: str) -> float:
    """Turn the value that a profile returned into a float."""
    try:
        return float(phi)
    except (TypeError, ValueError):
        allowed = f"it returned {phi!r}; it must return φ, a number in (0, 1]"
        raise PlanError("profile", profile, allowed) from None


def _check_profile(profile: str | Profile, batch_size: object) -> None:
    if callable(profile):
        return
    _check_choice("profile", profile, (*PROFILES, RAMP, *SPLITS))
    if (profile == RAMP) != isinstance(batch_size, str):
        allowed = f'profile="{RAMP}" takes sizes by samples, batch_size="0:768 250M:1536"'
        raise PlanError("batch_size", repr(batch_size), f"{allowed}; the others take a number")


def _check_choice(name: str, value: object, choices: Collection[str]) -> None:
    if value not in choices:
        hint = nearest(str(value), choices)
        raise PlanError(name, value, f"it must be one of {', '.join(choices)}.{hint}")


def _check_names(
    profile: str | Profile, of_profile: Mapping[str, Any], known: Collection[str]
) -> None:
    needed = {} if profile == RAMP else parameters(profile)
    label = name_of(profile)
    for name, value in of_profile.items():
        if name not in needed:
            has = f"{label} has {', '.join(needed) or 'none'} of its own"
            hint = nearest(name, known)
            if name in ("kappa", "lam"):
                hint = " Give gamma and split: κ = γ^split, and λ = (κ/γ)²"
            raise PlanError(name, value, f"there is no such argument; {has}.{hint}")
    for name, parameter in needed.items():
        if parameter.default is parameter.empty and of_profile.get(name) is None:
            example = declared(profile)[name].text or f"{name}=1"
            raise PlanError(name, None, f"{label} needs it, e.g. {example}")


def _check_number(name: str, value: Any, rule: Rule) -> None:
    holds, allowed = rule
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, (bool, str)) or not math.isfinite(number):
        raise PlanError(name, repr(value), f"it must be a number; {allowed}")
    if name in WHOLE and number != int(number):
        raise PlanError(name, value, f"it must be a whole number; {allowed}")
    if not holds(number):
        raise PlanError(name, value, allowed)


def _check_length(given: Mapping[str, Any]) -> None:
    """Refuse what is neither ``epochs`` with n, nor ``samples`` with n or without."""
    n, epochs, samples = given["n"], given["epochs"], given["samples"]
    if epochs is None and samples is None:
        raise PlanError("epochs", None, "say how long to train: epochs with n, or samples")
    if epochs is not None and samples is not None:
        raise PlanError("samples", samples, f"epochs={epochs} says that too; leave one out")
    if n is None and samples is None:
        raise PlanError("n", None, "give the training samples; for a stream give samples instead")
    if n is not None and samples is not None and samples > n * MOST_EPOCHS:
        raise PlanError("samples", samples, f"it must be at most {MOST_EPOCHS:,} epochs of n={n}")
