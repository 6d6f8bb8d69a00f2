"""What differs between settings that are compared, besides their results."""

import math

import numpy as np
from polars import DataFrame

from igo.ground.files import Record
from igo.ground.statistics import Array
from igo.report.settings import TOTALS

SAME = 1e-6  # Totals that differ by a smaller share are called equal.
# The number of batches in an epoch is whole, and η makes up for it by up to some per cent.
LEAST = 0.05


def ratio(name: str, first: Record, second: Record) -> str | None:
    """A total of one setting over that of another, ``×0.5``; "" if equal, None if not known."""
    dividend, divisor = first[f"{name}_mean"], second[f"{name}_mean"]
    if not dividend or not divisor:
        return None
    is_equal = math.isclose(dividend, divisor, rel_tol=SAME)
    return "" if is_equal else f"×{dividend / divisor:.3g}"


def ratios(first: Record, second: Record) -> str:
    """The totals of one setting over those of another: ``updates ×0.5; equal: images``."""
    by_words = {words: ratio(name, first, second) for name, words in TOTALS.items()}
    phrases = [", ".join(f"{words} {text}" for words, text in by_words.items() if text)]
    if equal := [words for words, text in by_words.items() if text == ""]:
        phrases.append(f"equal: {', '.join(equal)}")
    return "; ".join(filter(None, phrases))


def differ_in_both(curves: DataFrame, first: int, second: int) -> bool:
    """Whether two settings differ in η and in b, and b of one changes from epoch to epoch.

    Then nothing tells which of the two made a difference. Runs of one epoch are never called so: if
    b grows inside it, the mean of η over its updates differs from that of a control, though both
    have the same η at each image.
    """
    epochs, other_epochs = (curves.filter(setting=setting) for setting in (first, second))
    names = ("b_m_mean", "b_m_mean_right", "eta_m_mean", "eta_m_mean_right")
    b, other_b, eta, other_eta = epochs.join(other_epochs, on="epoch").select(names).to_numpy().T
    b_changes = _differs(b, b[:1]) or _differs(other_b, other_b[:1])
    return b_changes and _differs(b, other_b) and _differs(eta, other_eta)


def _differs(values: Array, other_values: Array) -> bool:
    return bool((np.abs(values - other_values) > LEAST * other_values).any())
