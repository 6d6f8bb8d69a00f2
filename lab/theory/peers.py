"""Other global optimizers, at an equal number of function evaluations."""

import contextlib
import warnings
from collections.abc import Callable

import numpy as np
from scipy import optimize

from lab.theory.functions import Array, TestFunction


class BudgetSpentError(Exception):
    """Raised inside an optimizer to stop it at exactly the budget."""


class Counted:
    """A test function that counts, remembers the best value, and stops at the budget."""

    def __init__(self, function: TestFunction, budget: int, gradient_cost: int) -> None:
        self.function, self.budget, self.gradient_cost = function, budget, gradient_cost
        self.used, self.best = 0, np.inf

    def _spend(self, cost: int) -> None:
        if self.used + cost > self.budget:
            raise BudgetSpentError
        self.used += cost

    def value(self, x: Array) -> float:
        """Return f(x) for x (d,)."""
        self._spend(1)
        value = float(self.function.value(x))
        self.best = min(self.best, value)
        return value

    def values(self, x: Array) -> Array:
        """Return f of points (d, n), SciPy's convention; ∞ for points beyond the budget."""
        affordable = min(x.shape[1], self.budget - self.used)
        if affordable == 0:
            raise BudgetSpentError
        self._spend(affordable)
        values = np.full(x.shape[1], np.inf)
        values[:affordable] = self.function.value(x.T[:affordable])
        self.best = min(self.best, float(values.min()))
        return values

    def gradient(self, x: Array) -> Array:
        """Return ∇f(x), counted as `gradient_cost` evaluations."""
        self._spend(self.gradient_cost)
        return self.function.gradient(x)


def _bounds(f: Counted, start: Array) -> list[tuple[float, float]]:
    return [f.function.domain] * start.size


def _local(f: Counted, start: Array) -> dict[str, object]:
    return {"method": "L-BFGS-B", "jac": f.gradient, "bounds": _bounds(f, start)}


def _dual_annealing(f: Counted, start: Array, seed: int) -> None:
    optimize.dual_annealing(
        f.value,
        _bounds(f, start),
        x0=start,
        rng=seed,
        maxiter=10**6,
        minimizer_kwargs=_local(f, start),
    )


def _differential_evolution(f: Counted, start: Array, seed: int) -> None:
    optimize.differential_evolution(
        f.values,
        _bounds(f, start),
        x0=start,
        rng=seed,
        maxiter=10**6,
        tol=0,
        polish=False,
        vectorized=True,
        updating="deferred",
    )


def _basin_hopping(f: Counted, start: Array, seed: int) -> None:
    low, high = f.function.domain
    optimize.basinhopping(
        f.value,
        start,
        niter=10**6,
        rng=seed,
        stepsize=0.05 * (high - low),
        minimizer_kwargs=_local(f, start),
    )


def _cma_es(f: Counted, start: Array, seed: int) -> None:
    import cma

    low, high = f.function.domain
    rng = np.random.default_rng(seed)
    x0 = start
    while True:
        options = {"bounds": [low, high], "seed": int(rng.integers(1, 2**31)), "verbose": -9}
        search = cma.CMAEvolutionStrategy(x0, 0.3 * (high - low), options)
        while not search.stop():
            points = search.ask()
            search.tell(points, f.values(np.array(points).T))
        x0 = rng.uniform(low, high, start.size)  # users of CMA-ES restart at random points


PEERS: dict[str, Callable[[Counted, Array, int], None]] = {
    "dual_annealing": _dual_annealing,
    "differential_evolution": _differential_evolution,
    "basin_hopping": _basin_hopping,
    "cma_es": _cma_es,
}


def best_value(
    name: str, function: TestFunction, start: Array, budget: int, gradient_cost: int, seed: int
) -> tuple[float, int]:
    """Run a peer from `start` (d,) and return the best value and the evaluations used.

    Two settings are not defaults. The step of basin hopping is 5 % of the domain, because its
    default is in absolute units. The initial σ of CMA-ES is 30 % of the domain, as its authors
    advise. ValueError for an unknown name.
    """
    if name not in PEERS:
        raise ValueError(f"method={name!r} must be one of {', '.join(PEERS)}")
    counted = Counted(function, budget, gradient_cost)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flat or kinked test functions make the peers complain
        with contextlib.suppress(BudgetSpentError):
            PEERS[name](counted, start, seed)
    return counted.best, counted.used
