"""How often a run evaluates where that is left to it: ``evaluate_every=auto``."""

from __future__ import annotations

import math

from igo.config.schema import Config, held_out, total_epochs, training_samples

# Evaluating an image takes at most a quarter of the time of training on one (docs/performance.md),
# so that evaluations of a fifth as many images as are trained on take at most 5 % of it.
TRAINED_PER_EVALUATED = 5
FEW = 1000  # images that are evaluated after every epoch: it takes a fraction of a second


def every(config: Config) -> int:
    """Epochs between evaluations, the fewest that keep to TRAINED_PER_EVALUATED.

    One evaluation, after the last epoch, is made in any case.
    """
    images = (config.dataset.test_samples or 0) + held_out(config.dataset)
    if images <= FEW:
        return 1
    epochs = total_epochs(config)
    affordable = epochs * training_samples(config) // (TRAINED_PER_EVALUATED * images)
    return math.ceil(epochs / max(affordable, 1))
