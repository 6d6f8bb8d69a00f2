"""The curves of a plan: what the noise, or η, and the batch size are in each stage.

η/η_1 = φ √(b/b_1), so two of the three curves make a plan: φ with a split or with b, or η/η_1 with
b, which may be constant.
"""

import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from igo.plans import batches
from igo.plans.algorithm3 import lengths_of_stages
from igo.plans.arguments import Arguments, Named, PlanError
from igo.plans.plan import Plan
from igo.plans.profiles import Position, Profile, function, name_of

LEAST, MOST = 1e-300, 1e300  # η, φ or b/b_1 outside these could underflow to 0, or overflow.


@dataclass(frozen=True)
class Curve:
    """A function of t in a plan, and the numbers that it may return: from ``least`` to ``most``.

    ``argument`` is its name in ``plan``.
    """

    argument: str
    symbol: str
    interval: str
    least: float
    most: float
    profile: str | Profile
    parameters: Named = field(default_factory=dict)

    def at(self, position: Position, update: int | None = None) -> float:
        """The value in a stage; or in an update, counted from 1, of the clock of updates.

        Raises:
            PlanError: it is no number in the curve's range, or does not begin at 1.
        """
        returned = function(self.profile)(position, **self.parameters)
        try:
            value = float(returned)
        except (TypeError, ValueError):
            value = math.nan
        # φ and η/η_1 are relative to stage 1: with another number there, η_1 and b_1 would not be
        # those given.
        is_relative_start = position.m == 1 and self.argument != "batch_size"
        starts_at_1 = not is_relative_start or math.isclose(value, 1, rel_tol=1e-9)
        # Schedulers of PyTorch's may end at 0.
        is_last_zero = value == 0 and update and position.m == position.M
        if starts_at_1 and (self.least <= value <= self.most or is_last_zero):
            return value
        symbol, interval = self.symbol, self.interval
        place = f"in update {update:,}" if update else f"in stage {position.m} of {position.M}"
        if math.isnan(value):
            need = f"{symbol} is a number in {interval}"
            fault = f"at t = {position:g} it returned {returned!r}; {need}"
        elif not starts_at_1:
            cure = f"divide {symbol} by its value at t = 0"
            fault = f"{symbol} is {value:g} {place} and must be 1; {cure}"
        else:
            fault = f"{symbol} is {value:g} {place} and must be in {interval}"
            if update:
                fault += "; it may be 0 in the last update alone"
            elif value < self.least < 1:
                fault += "; use fewer stages or a slower decay"
            elif self.argument == "profile":
                fault += "; it may not rise above its start"
        raise PlanError(self.argument, name_of(self.profile), fault)


def _given_curve(args: Arguments) -> Curve:
    """The curve of φ, or of η/η_1 where the plan is given by its rate."""
    if args.rate:
        return Curve("rate", "η/η_1", "(0, ∞)", LEAST, MOST, args.profile, args.own)
    return Curve("profile", "φ", "(0, 1]", LEAST, 1, args.profile, args.own)


class Stage(NamedTuple):
    """A stage as it is asked for; its batches are not whole yet.

    ``start`` is a sample, from 0. ``factor`` is φ, or η/η_1 where the plan is given by its rate.
    ``batch_size`` is b, which never falls.
    """

    start: int
    factor: float
    batch_size: float


def stages_of_curves(args: Arguments, starts: Sequence[int]) -> list[Stage]:
    """The stages that begin at these samples, or by ``h`` elsewhere, and those of a table of b."""
    positions = _positions(args, starts)
    factors = [1.0] * len(starts)  # With the clock of updates, each update gets its own later.
    if args.clock == "samples":
        factors = [_given_curve(args).at(position) for position in positions]
    if callable(args.sizes):
        sizes = _sizes_of_function(args.sizes, positions)
    elif args.sizes or args.rate:  # With a rate a number is a table of one size.
        thresholds = args.thresholds
        all_starts = sorted({*starts, *thresholds})
        # A stage that the table begins has the factor of the stage that it cuts.
        factors = [factors[bisect_right(starts, start) - 1] for start in all_starts]
        sizes = [_size_at(start, thresholds) for start in all_starts]
        starts = all_starts
    else:  # b = b_1 φ^(-2(1-s)) is the split rule [derived from δ = η √(C²/b)].
        power = 2 * (1 - args.split)
        sizes = [args.batch_size / max(math.pow(phi, power), LEAST) for phi in factors]
    # b never shrinks: a smaller batch would bring back noise that is gone. Where φ rises again, η
    # alone follows it.
    sizes = [_on_grid(args, size) for size in accumulate(sizes, max)]
    if args.h is not None:
        starts = _lengthened(args, args.h, factors, sizes)
    return list(map(Stage, starts, factors, sizes))


def _positions(args: Arguments, starts: Sequence[int]) -> list[Position]:
    """t at the start of each stage, and the epochs after the warm-up that are done there."""
    n, warmup = args.per_epoch, args.warmup_samples
    are_whole_epochs = not any(start % n for start in (*starts, args.total))
    positions = []
    for m, start in enumerate(starts, 1):
        epochs = start // n - warmup // n if are_whole_epochs else (start - warmup) / n
        positions.append(Position(m, len(starts), max(epochs, 0)))
    return positions


def _sizes_of_function(function_of_b: Profile, positions: Sequence[Position]) -> list[float]:
    """b of each stage, as a function returns it; it may not fall."""
    curve = Curve("batch_size", "b", "[1, ∞)", 1, MOST, function_of_b)
    sizes = list[float]()
    for position in positions:
        size, largest = curve.at(position), max(sizes, default=0)
        if size < largest * (1 - batches.CLOSE):
            problem = f"b is {size:g} in stage {position.m} of {position.M}, after {largest:g}"
            raise PlanError("batch_size", name_of(function_of_b), f"{problem}; it never shrinks")
        sizes.append(size)
    return sizes


def _size_at(start: int, thresholds: dict[int, int]) -> float:
    """b of a table at a sample; the sizes of a table never fall."""
    return max(size for threshold, size in thresholds.items() if threshold <= start)


def _on_grid(args: Arguments, size: float) -> float:
    """b_1 times the nearest power of ``batch_ratio``, at most the largest size that is allowed."""
    ratio = args.batch_ratio
    if ratio == 1:
        return size
    power = math.log(size / args.batch_size, ratio)
    most = math.log(args.largest / args.batch_size, ratio)
    # A half is rounded up on every machine.
    return args.batch_size * math.pow(ratio, math.floor(min(power + 0.5, most) + batches.CLOSE))


def _lengthened(
    args: Arguments, h: float, factors: Sequence[float], sizes: Sequence[float]
) -> list[int]:
    """The samples at which stages begin whose updates are ∝ 1/(φ_m² - h η_m/η_1)."""
    if args.profile == "exponential":
        raise PlanError("h", h, "it needs a profile other than exponential, which counts epochs")
    allowed_sizes = [min(size, args.largest) for size in sizes]
    lengths = lengths_of_stages(factors, allowed_sizes, args.total - args.warmup_samples, h)
    ends = accumulate(lengths[:-1])
    return [0, *(args.warmup_samples + round(end) for end in ends)]


def rates_of_updates(args: Arguments, plan: Plan) -> Sequence[float]:
    """η/η_1 of each update, by the share of the updates before it; the warm-up has its own."""
    curve, warmup = _given_curve(args), args.warmup_samples
    # An update belongs to the warm-up if it begins before its end.
    warm_updates = plan.after(warmup - 1) + 1 if warmup else 0
    total = max(plan.updates - warm_updates, 1)
    rates = array("d")
    for updates_before, samples_before in enumerate(plan.starts()):
        epochs_before = max(samples_before - warmup, 0) / plan.n
        position = Position(max(updates_before - warm_updates, 0) + 1, total, epochs_before)
        rates.append(curve.at(position, updates_before + 1))
    return rates
