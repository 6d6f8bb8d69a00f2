"""The largest eigenvalues and the trace of a Hessian, from its products with vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from igo.ground.errors import UserError
from igo.ground.seeds import derive_seed, generator

Product = Callable[[Tensor], Tensor]  # a symmetric d × d matrix times a vector (d,)
MOST_RESTARTS = 50  # of Lanczos; a trained network took none to two


@dataclass(frozen=True)
class Top:
    """The algebraically largest eigenvalues (k,), in falling order, and unit vectors (k, d)."""

    values: Tensor
    vectors: Tensor


def largest(product: Product, start: Tensor, *, count: int, tolerance: float) -> Top:
    """The ``count`` largest eigenvalues by ARPACK's restarted Lanczos.

    Args:
        product: with the matrix; computed in the precision and on the device of ``start``.
        start: the first vector of Lanczos, (d,). It must not be orthogonal to the eigenvectors.
        count: k, less than d; it takes 2k + 4 products or more.
        tolerance: largest ‖H v − λ v‖/|λ|, which bounds λ's distance from an eigenvalue.

    Raises:
        UserError: the tolerance is not reached. It may be too small for single precision.
    """

    def multiply(vector: np.ndarray) -> np.ndarray:
        return product(torch.from_numpy(vector.ravel()).to(start)).double().cpu().numpy()

    d = len(start)
    operator = LinearOperator((d, d), matvec=multiply, dtype=np.float64)
    try:
        values, vectors = eigsh(
            operator, k=count, which="LA", v0=start.double().cpu().numpy(), tol=tolerance,
            ncv=min(2 * count + 3, d), maxiter=MOST_RESTARTS,
        )  # fmt: skip
    except ArpackNoConvergence:
        raise UserError(
            f"the largest eigenvalues are not found to tolerance={tolerance:g}; raise the"
            " tolerance, or take fewer eigenvalues"
        ) from None
    order = np.argsort(values)[::-1].copy()
    return Top(torch.from_numpy(values[order]), torch.from_numpy(vectors.T[order].copy()).to(start))


def trace(product: Product, top: Top, *, probes: int, seed: int) -> tuple[float, float]:
    """The trace and its standard error, by Hutchinson's estimator without the largest eigenvectors.

    tr H = Σ λ_i + tr(P H P), where P projects onto the complement of the eigenvectors. The second
    term is the mean of z'P H P z over random signs z, unbiased even if the eigenvectors are not
    exact. Most of the estimator's variance is of the large eigenvalues, which are left out of it
    (Hutch++, Meyer et al. 2021, with Lanczos vectors in place of a sketch).
    """
    products = []
    for probe in range(probes):
        random = generator(seed, "probe", probe)
        signs = torch.randint(2, (top.vectors.shape[1],), generator=random) * 2 - 1
        vector = signs.to(top.vectors)
        vector -= top.vectors.T @ (top.vectors @ vector)
        products.append(float(torch.dot(vector.double(), product(vector).double())))
    rest = np.array(products)
    error = float(rest.std(ddof=1)) / math.sqrt(probes)
    return float(top.values.sum()) + float(rest.mean()), error


def random_direction(like: Tensor, seed: int) -> Tensor:
    """A Gaussian vector like ``like`` in shape, precision and device, for Lanczos to start from."""
    return torch.randn(len(like), generator=generator(derive_seed(seed, "lanczos"))).to(like)
