"""Teacher and student: two-layer ReLU networks whose global minimum is known to be 0.

The student is x → Σ_i max(w_i·x, 0), the teacher has the unit vectors as weights, and the inputs
are N(0, I). f(W) = E(student − teacher)²/2 has a closed form (Cho and Saul 2009). From k = 6 units
on it has other minima, where plain descent can end (Safran and Shamir 2018). Runs are the leading
dimension.
"""

import numpy as np

from lab.theory.functions import Array


def initial(runs: int, k: int, seed: int) -> Array:
    """Return student weights N(0, 1/k), shape (runs, k, k): k units (rows) of k inputs."""
    return np.asarray(np.random.default_rng(seed).standard_normal((runs, k, k)) / np.sqrt(k))


def _angles(w: Array, v: Array) -> tuple[Array, Array, Array]:
    """Return ‖w_i‖ (..., k, 1), ‖v_j‖ (..., 1, k) and the angles between them (..., k, k)."""
    lengths = np.linalg.norm(w, axis=-1)[..., :, None], np.linalg.norm(v, axis=-1)[..., None, :]
    cosine = w @ v.swapaxes(-1, -2) / np.maximum(lengths[0] * lengths[1], 1e-300)
    return *lengths, np.arccos(np.clip(cosine, -1, 1))


def _overlap(w: Array, v: Array) -> Array:
    """Return Σ_ij E[max(w_i·x, 0) max(v_j·x, 0)], shape (...)."""
    first, second, angle = _angles(w, v)
    shape = np.sin(angle) + (np.pi - angle) * np.cos(angle)
    return np.asarray((first * second * shape).sum((-2, -1)) / (2 * np.pi))


def loss(w: Array) -> Array:
    """Return f(W) of weights (..., k, k), shape (...)."""
    v = np.eye(w.shape[-1])
    return np.asarray(_overlap(w, w) / 2 - _overlap(w, v) + _overlap(v, v) / 2)


def gradient(w: Array) -> Array:
    """Return ∇f(W), shape as W. Source: Brutzkus and Globerson 2017."""
    total = np.zeros_like(w)
    for sign, v in ((1, w), (-1, np.eye(w.shape[-1]))):
        first, second, angle = _angles(w, v)
        along = (second * np.sin(angle)).sum(-1, keepdims=True) * w / np.maximum(first, 1e-300)
        total += sign * (along + (np.pi - angle) @ v) / (2 * np.pi)
    return total


def sampled_gradient(w: Array, batch: int, rng: np.random.Generator) -> Array:
    """Return the mini-batch gradient of each run, on `batch` new inputs for each run."""
    x = rng.standard_normal((len(w), batch, w.shape[-1]))
    before = x @ w.swapaxes(-1, -2)
    residual = np.maximum(before, 0).sum(-1) - np.maximum(x, 0).sum(-1)
    return np.asarray(((before > 0) * residual[..., None]).swapaxes(-1, -2) @ x / batch)
