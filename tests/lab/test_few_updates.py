"""The study of results/few_updates.md: its search, and the sizes of its ramps."""

import itertools
import math

import pytest

from lab.study import few_updates
from lab.study.few_updates import CONSTANT, LINEAR, MEASURED_ROOT, ROOT, SWAPPED, Steps, walk
from lab.study.language import SAMPLES

GROWTH = {
    ROOT: {0: 1, 1 / 16: 2, 1 / 4: 4},
    LINEAR: {0: 1, 1 / 16: 2, 1 / 8: 4, 1 / 4: 8, 1 / 2: 16},
}


@pytest.mark.parametrize("lowest", [(0, 0, 0), (2, -1, 3), (-3, 4, 0)])
def test_a_walk_ends_at_the_lowest_of_all_and_tries_each_of_its_neighbours(lowest: Steps) -> None:
    """A bowl whose settings depend on one another; its grid is enumerated."""

    def loss(steps: Steps) -> float:
        x, y, z = (step - low for step, low in zip(steps, lowest, strict=True))
        return x * x + y * y + z * z + 0.8 * x * y

    tried, best = walk((0, 0, 0), loss)
    grid = itertools.product(range(-6, 7), repeat=3)
    assert best == lowest == min(grid, key=loss)
    neighbours = {(*best[:i], best[i] + by, *best[i + 1 :]) for i in range(3) for by in (-1, 1)}
    assert {best, *neighbours} <= {*tried}
    asked, unfinished = walk((0, 0, 0), lambda steps: None if steps == (1, 0, 0) else loss(steps))
    assert (asked, unfinished) == ([(0, 0, 0), (-1, 0, 0), (1, 0, 0)], None)


def test_a_ramp_grows_as_it_is_to_and_has_the_updates_of_its_constant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The updates are counted batch by batch, with the size that began last."""
    for arm in ((ROOT, 44), (ROOT, 88), (LINEAR, 44)):
        family, b = arm
        monkeypatch.setattr(few_updates, "measured_root", lambda _: {1 / 16: 2.0, 1 / 4: 4.0})
        sizes = few_updates.sizes_of(arm, {})
        assert sizes.keys() == GROWTH[family].keys()
        firsts = [[(sizes[s] + d) / g for d in (-0.5, 0.5)] for s, g in GROWTH[family].items()]
        assert max(low for low, _ in firsts) <= min(high for _, high in firsts)
        updates = place = 0
        while place < SAMPLES:
            place += [size for share, size in sizes.items() if share * SAMPLES <= place][-1]
            updates += 1
        assert abs(updates - math.ceil(SAMPLES / b)) <= 1
        if family == ROOT:
            for other in (SWAPPED, MEASURED_ROOT):
                assert few_updates.sizes_of((other, b), {}) == sizes
            assert few_updates.sizes_of((CONSTANT, b), {}) == {0: b}
