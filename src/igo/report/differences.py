"""What differs between settings that are compared, besides their results."""

import math

import numpy as np
from polars import DataFrame

from igo.ground.files import Record
from igo.ground.statistics import Array
from igo.report.settings import TOTALS

SAME = 1e-6  # Totals that differ by a smaller share are called equal.
# Smaller shares are rounding: an epoch has a whole number of batches, and η makes up for the
# rounding of this number by up to some per cent.
LEAST = 0.05


def ratio(name: str, first: Record, second: Record) -> float | None:
    """A total of one setting over that of another; None if a total is 0 or not known.

    The ratio is exactly 1 for totals that are called equal.
    """
    dividend, divisor = first[f"{name}_mean"], second[f"{name}_mean"]
    if not dividend or not divisor:
        return None
    is_equal = math.isclose(dividend, divisor, rel_tol=SAME)
    return 1.0 if is_equal else float(dividend / divisor)


def ratios(first: Record, second: Record) -> str:
    """The totals of one setting over those of another: ``updates ×0.5; equal: images``."""
    different, equal = [], []
    for name, words in TOTALS.items():
        quotient = ratio(name, first, second)
        if quotient == 1:
            equal.append(words)
        elif quotient is not None:
            different.append(f"{words} ×{quotient:.3g}")
    phrases = [", ".join(different), f"equal: {', '.join(equal)}" if equal else ""]
    return "; ".join(filter(None, phrases))


def differ_in_both(curves: DataFrame, first: int, second: int) -> bool:
    """Whether two settings differ in η and in b, and b of one changes from epoch to epoch.

    Then nothing tells whether η or b made a difference. For runs of one epoch the answer is no: if
    b grows inside the epoch, the mean of η over its updates differs from that mean of a control,
    though both runs have the same η at each image.
    """
    epochs = curves.filter(setting=first).join(curves.filter(setting=second), on="epoch")
    names = ("b_m_mean", "b_m_mean_right", "eta_m_mean", "eta_m_mean_right")
    b, other_b, eta, other_eta = epochs.select(names).to_numpy().T
    b_changes = _differs(b, b[:1]) or _differs(other_b, other_b[:1])
    return b_changes and _differs(b, other_b) and _differs(eta, other_eta)


def _differs(values: Array, other_values: Array) -> bool:
    """Whether any value differs by more than the share LEAST of the other value."""
    return bool((np.abs(values - other_values) > LEAST * other_values).any())
