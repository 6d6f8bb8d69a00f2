"""Stratified parts of a labelled data set: each class has the same share."""

from __future__ import annotations

import numpy as np

TEST_SHARE = 0.2  # for the user's data without a test set


def subset(labels: np.ndarray, samples: int, draw: int = 0) -> np.ndarray:
    """Sorted indices of a stratified part of the data; the same ``draw`` gives the same part."""
    if samples == len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(draw).permutation(len(labels))
    rank = np.empty(len(labels))  # position of each sample within its class, from 0 to 1
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(order[np.argsort(rank[order], kind="stable")][:samples])


def split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on, and indices of a fixed, stratified fifth as the test set."""
    test = subset(labels, round(TEST_SHARE * len(labels)))
    return np.delete(np.arange(len(labels)), test), test
