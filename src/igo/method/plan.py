"""The whole schedule as plain data, computed before the first step: a noise profile times a split.

Stage m has the noise δ_m = δ_1 φ_m (slides, Algorithm 3). ``plan`` says how the split s divides it
between learning rate and batch size [derived], and ``_applied`` how b becomes whole batches.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from igo.method import arguments, batches
from igo.method.algorithm3 import lengths_of_stages, stages_of
from igo.method.arguments import Algorithm3, Arguments, PlanError, PlanWarning
from igo.method.profiles import Position, Profile, function, name_of
from igo.method.stages import COLUMNS, Plan, Row

__all__ = ["COLUMNS", "Plan", "Row", "plan"]

LEAST_PHI = 1e-300  # below it η could underflow to 0
PLAIN = (int, float, str, bool)  # types that a checkpoint may hold, see torch.load(weights_only=)


def plan(
    profile: str | Profile,
    *,
    n: int | None = None,
    epochs: int | None = None,
    samples: int | None = None,
    batch_size: int,
    learning_rate: float = 1.0,
    split: float | None = None,
    stages: int | None = None,
    warmup_samples: int = 0,
    max_batch_size: int | None = None,
    batch_multiple: int = 1,
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
    5 epochs of 50,000 samples: 5,860 updates
    >>> plan.updates, plan.batches_of_epoch(2), round(plan.rows[1].b_m, 2)
    (5860, 1398, 35.77)
    >>> update = plan.at(1600)
    >>> update.stage, update.epoch, update.batch, update.batch_size
    (2, 2, 37, 36)

    A single pass over a stream has as many stages as you like:

    >>> print(igo.plan("cosine", samples=10**6, stages=3, batch_size=100))
    stage  epochs  batches  updates     φ_m     κ_m     λ_m  η_m/η_1    b_m  samples
        1       1    3,334    3,334  1.0000  0.8659  1.3331        1  100.0  333,333
        2       1    2,501    2,501  0.7500  0.5772  2.9988  0.86594  133.3  333,334
        3       1      834      834  0.2500                  0.49985  399.7  333,333
    1 epoch of 1,000,000 samples: 6,669 updates

    Args:
        profile: one of ``igo.method.profiles.PROFILES``, a function that returns φ in (0, 1] for t
            in [0, 1), the share of the schedule before a stage (φ is 1 at t = 0), or
            ``"method1"`` to ``"method4"``, the paper's methods with 5 stages.
        n: training samples. For a stream leave it out, and give ``samples``.
        epochs: passes over the n samples.
        samples: instead of ``epochs``, how many samples to train on, counting repeats. The last
            epoch need not be a whole one.
        batch_size: b_1, the largest batch of the first stage; k_1 = ⌈n/b_1⌉.
        learning_rate: η_1, for a plan that shows η_m itself. ``Schedule`` does not need it: it
            multiplies the rates that the optimizer was made with by η_m/η_1.
        split: s ≤ 1, the learning rate's share of the decay: 1 all of it, 0 none; below 0 η rises,
            and b grows faster. 1/2 by default, but the paper's methods have their own.
        stages: M, by default one for each epoch. If there are more stages than epochs, or the last
            epoch is not whole, stages begin inside epochs.
        warmup_samples: W, over which η and δ rise linearly to η_1 and δ_1: the update that ends
            with sample s has η_1 s/W. The profile begins after the warm-up.
        max_batch_size: the largest batch size allowed; None is n.
        batch_multiple: the larger batch size of a stage is a multiple of it if possible.
        algorithm3: see ``igo.Algorithm3``.
        of_profile: the profile's parameters, such as ``p``.

    Returns:
        A ``Plan``: plain data, with a row for each stage. ``print`` shows it.

    Raises:
        PlanError: it names the argument, its value and which values are right.
    """
    made = _plan(arguments.checked(**locals()))
    for note in notes(made):
        warnings.warn(note, PlanWarning, stacklevel=2)
    return made


def notes(plan: Plan) -> list[str]:
    """What is perhaps not meant in a plan that can be trained."""
    noisy = [row for row in plan.rows if row.phi_m > 0]  # not those of stage M + 1
    last, found = noisy[-1].stage, []
    flat = all(math.isclose(row.phi_m, 1) for row in noisy)
    if flat and plan.arguments.get("profile") != "constant":
        found.append(
            f"M = {last}: the noise stays at δ_1, so profile and split do nothing; more stages"
            " may lower it"
        )
    full = next((row.stage for row in noisy if row.b_m == plan.n), None)
    if full and noisy[0].batches > 1 and plan.arguments.get("max_batch_size") is None:
        found.append(
            f"b reaches n = {plan.n:,} in stage {full} of {last}: from there on SGD has no noise;"
            " a lower max_batch_size keeps some, and max_batch_size=n says that you want this"
        )
    return found


@dataclass(frozen=True)
class Segments:
    """Equal segments of one stage in ``epochs`` consecutive epochs; stage and epoch count from 1.

    Each segment has ``samples`` of its epoch, from sample ``start`` on.
    """

    stage: int
    first_epoch: int
    epochs: int
    start: int
    samples: int


def _plan(given: Arguments) -> Plan:
    """From checked arguments to a plan."""
    total, n = given.total, given.n or given.total
    most = total // given.batch_size if given.h is None else given.epochs or 0
    stages = stages_of(
        given.stages, given.epsilon, given.alpha_0, profile=given.profile, p=given.own.get("p"),
        most=most, epochs=batches.count(total, n) - given.warmup_samples // n,
    )  # fmt: skip
    starts = _starts(total, n, stages, given.warmup_samples)
    whole = not any(start % n for start in (*starts, total))  # stages of whole epochs
    phis = _noise_levels(given, n, starts, whole)
    if given.h is not None:
        starts = _lengthened(given, given.h, n, phis, whole)
    segments = list(_cut(starts, total, n))
    applied = _applied(given, n, phis, segments)
    levels = [phis[segment.stage - 1] for segment in segments]
    if given.final_updates:  # stage M + 1: δ = 0, gradient descent on f itself
        if not whole:
            allowed = "full batches must follow whole epochs of a data set of n samples"
            raise PlanError("final_updates", given.final_updates, allowed)
        segments.append(Segments(len(starts) + 1, total // n + 1, given.final_updates, 0, n))
        levels.append(0.0)
        applied.append((1, applied[-1][1]))
    rows = _rows(segments, levels, applied)
    own = {name: v if type(v) in PLAIN else str(v) for name, v in given.own.items()}
    shown = {**vars(given), "profile": name_of(given.profile), **own}
    del shown["own"]
    return Plan(rows, n, given.learning_rate, given.warmup_samples, shown)


def _noise_levels(given: Arguments, n: int, starts: Sequence[int], whole: bool) -> list[float]:
    """φ of each stage, from the profile."""
    profile, name = function(given.profile), name_of(given.profile)
    count, warmup, phis = len(starts), given.warmup_samples, []
    for m, start in enumerate(starts, 1):
        # epochs before the stage, without those of the warm-up
        before = start // n - warmup // n if whole else max(start - warmup, 0) / n
        value: Any = profile(Position(m, count, max(before, 0)), **given.own)
        phi = math.nan
        with suppress(TypeError, ValueError):
            phi = float(value)
        phis.append(phi)
        if math.isnan(phi):
            fault = f"at t = {(m - 1) / count:g} it returned {value!r}; φ is a number in (0, 1]"
        elif m == 1 and not math.isclose(phi, 1, rel_tol=1e-9):
            fault = f"φ is {phi:g} in stage 1 and must be 1; divide φ by its value at t = 0"
        elif not LEAST_PHI < phi <= 1:
            rises = "φ may not rise above φ(0) = 1"
            fault = (
                f"its noise level is δ_{m} = {phi:g} δ_1 in stage {m} of {count}, and δ_m/δ_1"
                f" must be in (0, 1]; {rises if phi > 1 else 'use fewer stages or a slower decay'}"
            )
        else:
            continue
        raise PlanError("profile", name, fault)
    return phis


def _applied(
    given: Arguments, n: int, phis: Sequence[float], segments: Sequence[Segments]
) -> list[tuple[int, float]]:
    """k and η of each segment; b never shrinks, as it follows the lowest φ so far.

    A segment of N samples in k equal batches has b = N/k. b = b_1 φ^(-2(1-s)) is the split rule
    [derived from δ = η √(C²/b)], hence k = ⌈k_1 (N/N_1) φ^(2(1-s))⌉, with k_1 and N_1 of the first
    segment. k is whole, and η = η_1 φ √(b/b_1) makes up for it: δ = δ_1 φ for every k, but for
    batches of one sample more or less. k is at least ⌈N/max_batch_size⌉, and at most k of the last
    segment of N samples. With ``batch_multiple`` it is the next k whose larger batch is a multiple.
    """
    lowest, largest = 1.0, min(given.max_batch_size or n, n)
    latest: dict[int, int] = {}  # k of the newest segment, by its samples
    applied: list[tuple[int, float]] = []
    n_1 = segments[0].samples
    k_1 = batches.count(n_1, min(given.batch_size, n_1))
    for segment in segments:
        size, phi = segment.samples, phis[segment.stage - 1]
        least, proportional = batches.count(size, largest), k_1 * size / n_1
        before = max(latest.get(size) or batches.whole(proportional), least)
        lowest = min(lowest, phi)
        shrunk = batches.whole(proportional * math.pow(lowest, 2 * (1 - given.split)))
        k = min(max(shrunk, least), before)
        multiple = given.batch_multiple
        k = next((j for j in range(k, before + 1) if not batches.count(size, j) % multiple), k)
        latest[size] = k
        root = math.pow(size * k_1 / (n_1 * k), 0.5)  # sqrt would change a plan's last bits
        applied.append((k, given.learning_rate * phi * root))
    return applied


def _lengthened(
    given: Arguments, h: float, n: int, phis: Sequence[float], whole: bool
) -> list[int]:
    """The starts of stages whose updates are ∝ 1/(φ_m² - h η_m/η_1)."""
    if not whole or given.warmup_samples or given.profile == "exponential":
        allowed = "it needs whole epochs, at least one a stage, no warm-up, and not exponential"
        raise PlanError("h", h, allowed)
    an_epoch_each = [Segments(m, m, 1, 0, n) for m in range(1, len(phis) + 1)]
    ks, etas = zip(*_applied(given, n, phis, an_epoch_each), strict=True)
    rates = [eta / given.learning_rate for eta in etas]
    lengths = lengths_of_stages(phis, rates, ks, given.total // n, h)
    return [epochs * n for epochs in accumulate([0, *lengths[:-1]])]


def _rows(
    segments: Sequence[Segments], phis: Sequence[float], applied: Sequence[tuple[int, float]]
) -> tuple[Row, ...]:
    """The rows of a plan, from φ, k and η of each segment."""
    rows = []
    for m, (segment, phi, (k, eta)) in enumerate(zip(segments, phis, applied, strict=True), 1):
        gamma = kappa = growth = None
        if m < len(segments):
            k_after, eta_after = applied[m]
            gamma, kappa = phis[m] / phi, eta_after / eta
            growth = segments[m].samples * k / (segment.samples * k_after)
        rows.append(
            Row(
                **vars(segment),
                batches=k,
                updates=segment.epochs * k,
                phi_m=phi,
                gamma_m=gamma,
                kappa_m=kappa,
                lambda_m=growth,
                eta_m=eta,
                b_m=segment.samples / k,
            )
        )
    return tuple(rows)


def _starts(total: int, n: int, stages: int, warmup: int) -> list[int]:
    """The samples at which equal stages begin; the warm-up belongs to the first stage.

    Stages are whole epochs if each can have one. Otherwise stage m + 1 begins after m/M of the
    samples that follow the warm-up, rounded.
    """
    warm, later = warmup // n, range(1, stages)  # whole epochs of warm-up; m of stages 2 to M
    left = total // n - warm
    if total % n == 0 and stages <= left:
        return [0, *((warm + m * left // stages) * n for m in later)]
    left = total - warmup
    return [0, *(warmup + (2 * m * left + stages) // (2 * stages) for m in later)]


def _cut(starts: Sequence[int], total: int, n: int) -> Iterator[Segments]:
    """Yield the segments of stages that begin at samples ``starts`` of ``total``; epochs have n."""
    for stage, (start, end) in enumerate(pairwise([*starts, total]), 1):
        place = start
        while place < end:
            epoch, offset = divmod(place, n)
            epochs = (end - place) // n if offset == 0 else 0
            samples = n if epochs else min(end - place, n - offset)
            epochs = max(epochs, 1)
            yield Segments(stage, epoch + 1, epochs, offset, samples)
            place += epochs * samples
