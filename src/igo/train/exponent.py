"""The ρ that curvature predicts for a run's model, with its data and optimizer."""

from __future__ import annotations

from torch.nn.functional import cross_entropy

from igo.config import optimizer_rules
from igo.ground.seeds import derive_seed
from igo.noise.exponent import NoiseExponent, noise_exponent
from igo.noise.measure import draw
from igo.train.state import Training


def predict(
    training: Training,
    *,
    learning_rate: float,
    momentum: float,
    batch_size: int,
    batches: int,
    sampling: str = "disjoint",
    modes: int = 10,
) -> NoiseExponent:
    """ρ at the model's present parameters, in its present mode.

    Raises:
        ValueError: no ρ is known for the optimizer, or see ``igo.noise_exponent``.
    """
    optimizer = training.config.optimizer
    if optimizer_rules.law(optimizer) not in optimizer_rules.OF_SGD:
        name = optimizer_rules.called(optimizer)
        raise ValueError(f"it is known for SGD with or without momentum, not {name}")
    seed = derive_seed(training.config.seed, "exponent")
    drawn = draw(sampling, n=training.data.n, batch_size=batch_size, batches=batches, seed=seed)
    scale = 1 - momentum if optimizer.name == "nshb" else 1.0
    return noise_exponent(
        training.network,
        cross_entropy,
        training.data.train_batches(drawn, seed),
        learning_rate=learning_rate * scale,
        momentum=momentum,
        weight_decay=optimizer.weight_decay,
        batches=batches,
        modes=modes,
        seed=seed,
    )
