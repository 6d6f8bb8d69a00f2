"""The rules by which two settings are judged, at their edges."""

import numpy as np

from igo.ground.statistics import LEAST_SEEDS, LEVEL, detectable
from igo.report.comparison import Pair, adjusted, paired_test
from igo.report.formats import p_value

MORE = LEVEL + 1e-9
GAPS = np.array([0.1, -0.2, 0.15, 0.05, -0.1, 0.12, 0.3])


def test_a_verdict_follows_from_the_adjusted_tests() -> None:
    cases = [  # the difference and its sd, p and p_equal, and the verdict
        (0.1, 0.1, LEVEL, 0.01, "higher"),  # A difference comes before equality.
        (-0.1, 0.1, LEVEL, 0.01, "lower"),
        (0.1, 0.1, MORE, LEVEL, "equal"),
        (0.1, 0.1, MORE, MORE, "undecided"),
        (0.1, 0.1, MORE, None, "undecided"),
        (0.0, 0.0, None, None, "equal"),  # All seeds agree.
        (0.1, 0.0, None, None, "undecided"),
        (0.0, None, None, None, "undecided"),  # There is one seed.
    ]
    for difference, sd, p, p_equal, verdict in cases:
        judged_pair = Pair(8, difference, sd=sd, p=0, p_equal=0, p_holm=p, p_equal_holm=p_equal)
        assert judged_pair.verdict == verdict, judged_pair


def test_two_settings_are_equal_only_with_seeds_and_a_margin() -> None:
    for n in range(2, len(GAPS) + 1):
        assert (paired_test(GAPS[:n], 5.0).p_equal is None) == (n < LEAST_SEEDS)
    assert paired_test(GAPS, None).p_equal is None


def test_a_p_value_is_never_shown_as_0() -> None:
    texts = [p_value(p) for p in (None, 0.0, 9.9e-5, 1e-4, 0.0234, 1.0)]
    assert texts == ["–", "< 0.0001", "< 0.0001", "0.0001", "0.023", "1"]


def test_only_pairs_that_are_tested_share_the_level() -> None:
    """Holm: the smaller p counts twice. One seed is no test."""
    small, large, one_seed = (
        paired_test(GAPS, 0.3),
        paired_test(GAPS + 0.3, 0.3),
        paired_test(GAPS[:1], 0.3),
    )
    a, b, c = adjusted([small, large, one_seed])
    assert (a.p_holm, b.p_holm, c.p_holm) == (small.p, 2 * (large.p or 1), None)
    assert (a.p_equal_holm, b.p_equal_holm) == (2 * (small.p_equal or 1), large.p_equal)
    assert (b.p_holm or 1) < LEVEL < (a.p_holm or 0)
    assert a.detectable == b.detectable == detectable(GAPS.std(ddof=1), len(GAPS), LEVEL / 2)
    assert c.detectable is None
    assert adjusted([paired_test(0 * GAPS, 0.3)])[0].detectable is None
