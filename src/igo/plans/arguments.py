"""The arguments of ``plan``, checked one by one and together; errors name the cure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from igo.ground.numbers import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Rule, within
from igo.plans import batches
from igo.plans.profiles import Profile

Named = Mapping[str, Any]  # Arguments by name
Table = Mapping[float, int]  # Sizes b by the places from which they hold: shares, or samples.
TABLE = (
    "a table begins at 0, and goes on by shares of the schedule, {0: 256, 0.03: 512}, or by"
    " samples, {0: 256, 40_000: 512}"
)
CLOCKS = ("samples", "updates")
MOST_EPOCHS = 1_000_000  # A run's record has a line for each.

RULES: dict[str, Rule] = {
    "n": AT_LEAST_ONE,
    "epochs": within(1, MOST_EPOCHS),
    "samples": AT_LEAST_ONE,
    "learning_rate": POSITIVE,
    "batch_size": AT_LEAST_ONE,
    "split": Rule(
        lambda s: s <= 1,
        "it must be at most 1: 1 = all of the decay in the learning rate, 0 = all in the batch,"
        " below 0 the learning rate rises and the batch grows faster",
    ),
    "stages": AT_LEAST_ONE,
    "warmup_samples": NOT_NEGATIVE,
    "max_batch_size": AT_LEAST_ONE,
    "batch_multiple": AT_LEAST_ONE,
    "batch_ratio": AT_LEAST_ONE,
    "h": NOT_NEGATIVE,
    "epsilon": POSITIVE,
    "alpha_0": POSITIVE,
    "final_updates": within(0, MOST_EPOCHS),
}
# Arguments that are whole numbers, and those that may not be None.
WHOLE = {*RULES} - {"learning_rate", "split", "batch_ratio", "h", "epsilon", "alpha_0"}
NEEDED = ("learning_rate", "batch_size", "warmup_samples", "batch_multiple", "batch_ratio")

HABITS = {  # What other programs call an argument.
    "learning_rate": "lr",
    "batch_size": "bs",
    "max_batch_size": "b_max max_bs",
    "epochs": "num_epochs max_epochs",
    "samples": "steps updates total_steps max_steps num_training_steps T_max",
    "warmup_samples": "warmup warmup_steps warmup_epochs num_warmup_steps",
    "floor": "min_lr eta_min",
    "share": "decay",
}
ALIASES = {word: name for name, words in HABITS.items() for word in words.split()}


class PlanError(ValueError):
    """An argument of ``plan``, of a sampler or of a schedule is wrong, or a loaded state is.

    Attributes: ``argument``, its name, or ``plan`` for the whole plan; ``value``, None if it is
    missing; ``allowed``, which values are right.
    """

    def __init__(self, argument: str, value: object, allowed: str) -> None:
        super().__init__(argument, value, allowed)
        self.argument, self.value, self.allowed = argument, value, allowed

    def __str__(self) -> str:
        if self.argument == "plan":
            return self.allowed
        fault = " is missing" if self.value is None else f"={self.value} is not allowed"
        return f"{self.argument}{fault}: {self.allowed}"


class PlanWarning(UserWarning):
    """A plan that can be trained, but is perhaps not what the user meant."""


class Algorithm3(TypedDict, total=False):
    """What only Algorithm 3 of the slides has; each may be left out.

    ``epsilon`` is ε, the accuracy wanted: it chooses M = ⌈(1/(α_0 ε))^(1/p)⌉ stages together with
    ``alpha_0``, see ``igo.plans.algorithm3.alpha_0``. With ``h`` a stage's updates are
    ∝ 1/(φ_m² - h η_m/η_1) [derived], h ≥ 0, in place of equal stages. ``final_updates`` are those
    of stage M + 1, where δ = 0: full batches at the last η.
    """

    epsilon: float | None
    alpha_0: float | None
    h: float | None
    final_updates: int


@dataclass(frozen=True)
class Arguments:
    """The checked arguments of ``plan``.

    ``profile`` is the curve of φ, or with ``rate`` that of η/η_1; ``own`` are the arguments of the
    curve itself. ``batch_size`` is b_1, and ``sizes`` the table or the function that was given in
    its place.
    """

    profile: str | Profile
    batch_size: int
    own: Named
    n: int | None = None
    epochs: int | None = None
    samples: int | None = None
    learning_rate: float = 1.0
    split: float = 0.5
    stages: int | None = None
    warmup_samples: int = 0
    max_batch_size: int | None = None
    batch_multiple: int = 1
    batch_ratio: float = 1.0
    sizes: Profile | Table | None = None
    rate: bool = False
    clock: str = "samples"
    epsilon: float | None = None
    alpha_0: float | None = None
    h: float | None = None
    final_updates: int = 0

    @property
    def total(self) -> int:
        """The samples that are trained on, each counted as often as it is used."""
        return self.samples or (self.n or 0) * (self.epochs or 0)

    @property
    def per_epoch(self) -> int:
        """The samples of an epoch: n, or all samples of a stream, which is one epoch."""
        return self.n or self.total

    @property
    def largest(self) -> int:
        """The largest batch size that is allowed and possible."""
        return min(self.max_batch_size or self.per_epoch, self.per_epoch)

    @property
    def thresholds(self) -> dict[int, int]:
        """The sizes of a table by the samples from which they hold; else b_1 from 0 on."""
        table = self.sizes if isinstance(self.sizes, Mapping) else {0: self.batch_size}
        later_samples = self.total - self.warmup_samples
        sizes_by_sample = {}
        for place, size in table.items():
            sample = place
            if isinstance(place, float):  # It is a share of the samples after the warm-up.
                sample = self.warmup_samples + batches.whole(place * later_samples)
            sizes_by_sample[int(sample)] = size
        return dict(sorted(sizes_by_sample.items()))
