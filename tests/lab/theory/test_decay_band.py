"""The band of decay rates: its floor from sampled widths, and which powers it allows."""

from pathlib import Path

import numpy as np
import pytest

from lab.theory import laboratory
from lab.theory import propositions as props
from lab.theory.studies import decay_rates

COMMITTED = Path(__file__).parents[3] / "results" / "theory"


def test_no_sampled_width_at_a_2_lets_p_1_in():
    """γ of p = 1 is ½ at its smallest, and Prop. 3.3 asks for γ > 1/d."""
    rng = np.random.default_rng(0)
    distance = 2 * np.sqrt(rng.random(200_000))  # inside N(x*; a r), r = 1
    cosine, u = np.cos(rng.uniform(0, np.pi / 2, 200_000)), rng.random(200_000)
    delta = props.delta_minus(distance, u, cosine, 1.0, 2.0)
    widths = props.width(1.0, 2.0, delta[np.isfinite(delta)])
    assert len(widths) > 100
    assert widths.max() < 2
    assert widths.max() == pytest.approx(2, abs=0.1)
    assert (1 / widths > 0.5).all()
    assert props.optimal_decay_rates(200, 1.0)[:-1].min() == 0.5


def test_the_row_excludes_p_1_at_a_2_alone():
    frames = laboratory.read_frames(COMMITTED, decay_rates.STUDY.frames)
    seen = decay_rates.powers_are_allowed.look(frames)
    refused = [check.what for check in seen.parts if check.holds is False]
    assert refused == ["smallest γ_m less 0.5, p = 1, a_m = 2"]
    assert all(check.holds is False for check in seen.controls)
