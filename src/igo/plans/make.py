"""The whole schedule as plain data, computed before the first step: two of three curves.

Stage m has the noise δ_m = δ_1 φ_m (slides, Algorithm 3), and η/η_1 = φ √(b/b_1). ``curves`` says
what each stage asks for, ``cuts`` how it becomes whole batches, and η makes up for the difference.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from igo.plans.algorithm3 import stages_of
from igo.plans.arguments import Algorithm3, Arguments, PlanError, PlanWarning
from igo.plans.checks import checked
from igo.plans.curves import rates_of_updates, stages_of_curves
from igo.plans.cuts import cut, equal_starts
from igo.plans.plan import Plan
from igo.plans.profiles import PROFILES, BatchSize, Profile, name_of
from igo.plans.rows import Row, linked, rated

FLAT = 0.1  # A curve of one's own that changes by less was perhaps meant for epochs or updates.
FEW = 10  # If a size has fewer batches, its place was perhaps no number of samples.
NAMES = {*PROFILES, "another plan"}  # The curves that are not of one's own.
PLAIN = (int, float, str, bool)  # A checkpoint may hold these, see torch.load(weights_only=).


def plan(
    profile: str | Profile | None = None,
    *,
    rate: str | Profile | Plan | None = None,
    clock: str = "samples",
    n: int | None = None,
    epochs: int | None = None,
    samples: int | None = None,
    batch_size: BatchSize,
    learning_rate: float = 1.0,
    split: float | None = None,
    stages: int | None = None,
    warmup_samples: int = 0,
    max_batch_size: int | None = None,
    batch_multiple: int = 1,
    batch_ratio: float = 1.0,
    algorithm3: Algorithm3 | None = None,
    **of_profile: Any,
) -> Plan:
    """Compute every stage of a training run: k_m batches an epoch, η_m and b_m.

    Stage m has the noise δ_m = δ_1 φ_m, by η_m = η_1 φ_m^s and b_m = b_1 φ_m^(-2(1-s)) (Algorithm 3
    of the slides; the split s is derived from it). b = n/k is rounded, and η corrects it.

    >>> plan = igo.plan("graduated", n=50_000, epochs=5, batch_size=32, p=0.5)
    >>> print(plan)
    stage  epochs  batches  updates     φ_m     κ_m     λ_m  η_m/η_1   b_m
        1       1    1,563    1,563  1.0000  0.9457  1.1180        1  32.0
        2       2    1,398    1,398  0.8944  0.9305  1.1544  0.94574  35.8
        3       3    1,211    1,211  0.7746  0.9035  1.2245     0.88  41.3
        4       4      989      989  0.6325  0.8411  1.4149  0.79508  50.6
        5       5      699      699  0.4472                  0.66874  71.5
    5 epochs of 50,000 samples: 5,860 updates; 7,815 with b constant
    >>> plan.updates, plan.batches_of_epoch(2), round(plan.rows[1].b_m, 2)
    (5860, 1398, 35.77)
    >>> update = plan.at(1600)
    >>> update.stage, update.epoch, update.batch, update.batch_size
    (2, 2, 37, 36)

    A single pass over a stream has 100 stages, or as many as you like:

    >>> print(igo.plan("cosine", samples=10**6, stages=3, batch_size=100))
    stage  epochs  batches  updates     φ_m     κ_m     λ_m  η_m/η_1    b_m  samples
        1       1    3,333    3,333  1.0000  0.8649  1.3300        1  100.0  333,300
        2       1    2,507    2,507  0.7500  0.5778  3.0045  0.86494  133.0  333,431
        3       1      834      834  0.2500                  0.49975  399.6  333,269
    1 epoch of 1,000,000 samples: 6,674 updates; 10,000 with b constant

    η/η_1 = φ √(b/b_1): give the noise φ or the rate η/η_1, and b as a number, a table or a
    function. A ramp of b at constant noise, with η ∝ √b, in batches of whole 64s:

    >>> print(igo.plan("constant", batch_size={0: 256, 0.1: 512, 0.5: 1024}, samples=1_024_000,
    ...                batch_multiple=64))
    stage  epochs  batches  updates     φ_m     κ_m     λ_m  η_m/η_1      b_m  samples
        1       1      400      400  1.0000  1.4142  2.0000        1    256.0  102,400
        2       1      800      800  1.0000  1.4142  2.0000   1.4142    512.0  409,600
        3       1      500      500  1.0000                        2  1,024.0  512,000
    1 epoch of 1,024,000 samples: 1,700 updates; 4,000 with b constant; η rises to 2 η_1

    Args:
        profile: one of ``igo.plans.profiles.PROFILES``, a function that returns φ in (0, 1] for t
            in [0, 1), the share of the schedule before a stage (φ is 1 at t = 0), or
            ``"method1"`` to ``"method4"``, the paper's methods with 5 stages.
        rate: instead of a profile, η/η_1: a name of PROFILES or a function of t. It is exact and
            may exceed 1. φ = (η/η_1)/√(b/b_1) follows, and may rise. Another plan is the η/η_1 that
            it has at each share of the samples, with its warm-up. See ``Plan.control``, too.
        clock: what t of a rate counts. By "samples" each stage has one η. By "updates" each update
            has its own, as with PyTorch's schedulers that step after each update, and the last one
            may be 0. Where b grows, most updates come early, and such a rate falls earlier.
        n: training samples. For a stream leave it out, and give ``samples``.
        epochs: passes over the n samples.
        samples: instead of ``epochs``, how many samples to train on, counting repeats. The last
            epoch need not be a whole one.
        batch_size: b. A number is b_1, the largest batch of the first stage (k_1 = ⌈n/b_1⌉): under
            a profile the split says how b goes on, under a rate it stays. A table has the sizes
            themselves, from a share of the schedule on, ``{0: 256, 0.03: 512}``, or from a number
            of samples, ``{0: 256, 40_000: 512}``: a size holds from the first batch at or after its
            place. A function returns b for t. b never shrinks.
        learning_rate: η_1, for a plan that shows η_m itself. ``Schedule`` does not need it: it
            multiplies the rates that the optimizer was made with by η_m/η_1.
        split: s ≤ 1, the learning rate's share of the decay: 1 all of it, 0 none; below 0 η rises,
            and b grows faster. 1/2 by default, but the paper's methods have their own.
        stages: M, by default one for each epoch, and 100 where that would be a single one and a
            curve depends on t. If there are more stages than epochs, or the last epoch is not
            whole, stages begin inside epochs.
        warmup_samples: W, over which η and δ rise linearly to η_1 and δ_1: the update that ends
            with sample s has η_1 s/W. The profile begins after the warm-up.
        max_batch_size: the largest batch size allowed; None is n. With n itself there is no warning
            that b reaches it. A b that stays has none, and no ``batch_ratio``.
        batch_multiple: every batch of a stream is a multiple of it, and less than one batch is
            left out at the end. Of a data set, whose samples all come once an epoch, the larger
            batch size of a stage is a multiple of it if possible.
        batch_ratio: b is b_1 times the nearest power of it, such as 2: few batch sizes; η takes the
            rest.
        algorithm3: see ``igo.Algorithm3``.
        of_profile: the profile's parameters, such as ``p``.

    Returns:
        A ``Plan``: plain data, with a row for each stage. ``print`` shows it.

    Raises:
        PlanError: it names the argument, its value and which values are right.
    """
    if isinstance(profile, Plan):
        raise PlanError("profile", "a plan", "a plan has a curve of η: give it as rate")
    if isinstance(rate, Plan):
        result = _with_rate_of(rate, locals())
    else:
        result = _plan(checked(**locals()))
    for note in notes(result):
        warnings.warn(note, PlanWarning, stacklevel=2)
    return result


def notes(plan: Plan) -> list[str]:
    """What is perhaps not meant in a plan that can be trained."""
    noisy_rows = [row for row in plan.rows if row.phi_m > 0]  # Stage M + 1 has no noise.
    last_stage, texts = noisy_rows[-1].stage, []
    if "control" not in plan.arguments:
        if still := _still_curves(plan.arguments, noisy_rows):
            texts.append(
                f"M = {last_stage}: {still}; a curve gets t, the finished share of the training, no"
                " epoch and no update; more stages may change this"
            )
        texts += _short_sizes(plan)
    left_out = (plan.arguments.get("samples") or 0) - plan.samples
    if left_out > noisy_rows[-1].b_m:
        texts.append(
            f"{left_out:,} samples are left out at the end, where a batch has more; a lower"
            " max_batch_size, or whole epochs, would train on them"
        )
    full_stages = [row.stage for row in noisy_rows if row.b_m == plan.n]
    is_asked = noisy_rows[0].batches == 1 or plan.arguments.get("max_batch_size") is not None
    if full_stages and not is_asked:
        texts.append(
            f"b reaches n = {plan.n:,} in stage {full_stages[0]} of {last_stage}: from there on SGD"
            " has no noise; a lower max_batch_size keeps some"
        )
    return texts


def _still_curves(arguments: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Which curves of the user's own hardly move, or that none moves at all; empty if all do."""
    profile, batch_size = arguments.get("profile"), arguments.get("batch_size")
    if all(math.isclose(row.phi_m, 1) and row.b_m == rows[0].b_m for row in rows):
        is_meant = profile == "constant" and isinstance(batch_size, int)
        return "" if is_meant else "η, b and the noise stay, so the curves do nothing"
    texts = []
    if profile not in NAMES:
        by_rate = arguments.get("rate")
        values = [row.eta_m if by_rate else row.phi_m for row in rows]
        change = max(values) / min(values) - 1
        if 0 < change < FLAT:  # A curve that stays at 1 is meant.
            texts.append(f"{'η' if by_rate else 'φ'} changes by {change:.2g}")
    if isinstance(batch_size, str):  # It is a function's name. A b that stays would be a number.
        values = [row.b_m for row in rows]
        change = max(values) / min(values) - 1
        if change < FLAT:
            texts.append(f"b changes by {change:.2g}")
    return " and ".join(texts)


def _short_sizes(plan: Plan) -> list[str]:
    """How many batches each size of a table has, if places were perhaps not meant as samples."""
    table = plan.arguments.get("batch_size")
    if not isinstance(table, Mapping) or not all(isinstance(place, int) for place in table):
        return []
    # The updates before each size, which begins with the first batch at or after its place.
    updates = [plan.after(min(place - 1, plan.samples)) + 1 if place else 0 for place in table]
    counts = [end - start for start, end in pairwise([*updates, plan.updates])]
    is_short = False
    sizes = pairwise(table.items())
    for ((place, b), (next_place, _)), count in zip(sizes, counts, strict=False):
        # A large b may have few batches and be meant: then its places lie far apart.
        if count < FEW and next_place - place < max(b, plan.samples / 100):
            is_short = True
    if not is_short:
        return []
    lengths = [f"{b:,} for {count:,}" for b, count in zip(table.values(), counts, strict=True)]
    places = "the places of a table are samples, or shares below 1"
    return [f"batches of each size: {', '.join(lengths)}; {places}"]


def _plan(args: Arguments) -> Plan:
    """From checked arguments to a plan."""
    stages = stages_of_curves(args, equal_starts(args, stages_of(args)))
    cut_rows = list(cut(args, stages))
    factors = [stages[row.stage - 1].factor for row in cut_rows]
    rows = rated(cut_rows, factors, args.learning_rate, by_rate=args.rate)
    # A stream's last samples, which fill no batch, are known once it is cut.
    n = args.n or rows[-1].start + rows[-1].samples
    if args.final_updates:
        rows = linked([*rows, _final_row(args, rows[-1], len(stages))])
    plan = Plan(rows, n, args.learning_rate, args.warmup_samples, _shown(args))
    if args.clock == "samples":
        return plan
    return plan.with_rates(rates_of_updates(args, plan))


def _final_row(args: Arguments, last_row: Row, stages: int) -> Row:
    """Stage M + 1, where δ is 0: gradient descent on f itself, in full batches at the last η."""
    if not args.n or args.total % args.n:
        advice = "full batches must follow whole epochs of a data set of n samples"
        raise PlanError("final_updates", args.final_updates, advice)
    return replace(
        last_row,
        stage=stages + 1,
        first_epoch=args.total // args.n + 1,
        epochs=args.final_updates,
        batches=1,
        phi_m=0.0,
        start=0,
        samples=args.n,
    )


def _with_rate_of(other: Plan, values: dict[str, Any]) -> Plan:
    """A plan that has η/η_1 of another plan at each share of the samples.

    ``values`` are the arguments of ``plan``.
    """
    for name, default in (("clock", "samples"), ("warmup_samples", 0)):
        if values[name] != default:
            advice = "the plan that is given as rate has its own; leave it out"
            raise PlanError(name, values[name], advice)
    for name, value in values["of_profile"].items():
        raise PlanError(name, value, "a plan that is given as rate takes no more; leave it out")
    # Its stages are those of any curve of t, and each update gets its own η.
    args = checked(**{**values, "rate": "linear", "clock": "updates"})
    warmup = round(other.warmup_samples * args.total / other.samples)
    plan = _plan(replace(args, warmup_samples=warmup))
    shown = {**plan.arguments, "profile": "another plan"}
    return replace(plan.with_rates(other.rates_in(plan)), arguments=shown)


def _shown(args: Arguments) -> dict[str, Any]:
    """The arguments by name, as plain values for messages and for checkpoints."""
    shown = {**vars(args), "profile": name_of(args.profile)}
    for name, value in shown.pop("own").items():
        shown[name] = value if type(value) in PLAIN else str(value)
    if sizes := shown.pop("sizes"):
        shown["batch_size"] = name_of(sizes) if callable(sizes) else {**sizes}
    return shown
