"""The orders of epochs: bijections, and as even as chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2

from igo.method import orders
from igo.method.orders import Keyed


@pytest.mark.parametrize("n", [*range(1, 70), 127, 128, 129, 1000, 65_535, 65_537, 200_003])
def test_a_keyed_permutation_has_every_index_once(n: int) -> None:
    order = Keyed(n, seed=3, epoch=2)
    assert sorted(order.part(0, n)) == list(range(n))


def test_any_part_is_that_of_the_whole() -> None:
    n = 2 * orders.BLOCK + 77
    whole, parts = Keyed(n, 0, 1).part(0, n), Keyed(n, 0, 1)
    for start, stop in ((n - 5, n), (0, 3), (orders.BLOCK - 2, 2 * orders.BLOCK + 2), (9, 9)):
        assert parts.part(start, stop) == whole[start:stop]


def test_keys_are_seed_and_epoch() -> None:
    drawn = [Keyed(1000, seed, epoch).part(0, 1000) for seed in range(3) for epoch in (1, 2)]
    assert len({tuple(order) for order in drawn}) == 6


@pytest.mark.parametrize("n", [6, 40, 1000])
def test_places_and_indices_are_even_as_of_chance(n: int) -> None:
    """χ² of (place, index) over many keys, in cells of equal size; the marginals are fixed."""
    cells, keys = min(n, 8), 1500 if n < 100 else 200
    table = np.zeros((cells, cells))
    places = np.arange(n) * cells // n
    for epoch in range(keys):
        indices = np.array(Keyed(n, 5, epoch).part(0, n)) * cells // n
        np.add.at(table, (places, indices), 1)
    sizes = np.bincount(places).astype(float)
    wanted = keys * np.outer(sizes, sizes) / n
    # Cov of the entries of a permutation's table is n/(n - 1) of that of a table of fixed marginals
    value = float(((table - wanted) ** 2 / wanted).sum()) * (n - 1) / n
    degrees = (cells - 1) ** 2
    assert chi2.ppf(1e-5, degrees) < value < chi2.ppf(1 - 1e-5, degrees)


def test_neighbours_are_far_apart_as_of_chance() -> None:
    """The mean distance of neighbours in a random order of n is (n + 1)/3."""
    n = 100_000
    distances = np.abs(np.diff(np.array(Keyed(n, 1, 1).part(0, n))))
    error = n / math.sqrt(18 * n)  # the deviation of the distance is n/√18; 5 of the mean's
    assert abs(distances.mean() - (n + 1) / 3) < 5 * error


def test_small_epochs_have_the_order_of_randperm() -> None:
    assert (orders.kind(2**24), orders.kind(2**24 + 1)) == ("randperm", "feistel")
