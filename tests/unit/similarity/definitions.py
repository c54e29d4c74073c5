"""Data to test similarity on, and its definitions written out slowly with n x n matrices."""

import numpy as np

from netsim.similarity.cka import similarity
from netsim.similarity.streaming import pair_hsic
from netsim.similarity.uncertainty import jackknife_se


def hsic_biased(K, L):
    """Return tr(K H L H): Kornblith et al. 2019, eq. 3 without the factor, which cancels."""
    n = len(K)
    H = np.eye(n) - np.ones((n, n)) / n
    return np.trace(K @ H @ L @ H)


def hsic_unbiased(K, L):
    """Return HSIC_1 with explicit zero diagonals: Song et al. 2012, eq. 5."""
    n, one = len(K), np.ones(len(K))
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    total = (
        np.trace(K @ L) + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ K @ L @ one)
    )
    return total / (n * (n - 3))


def slow_cka(X, Y, estimator):
    hsic = {"biased": hsic_biased, "unbiased": hsic_unbiased}[estimator]
    K, L = X @ X.T, Y @ Y.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def related(rng, n, dx=12, dy=7):
    """Draw two representations that share half of their content, skewed and heavy-tailed as ReLU features are."""
    shared = rng.normal(size=(n, 5))
    X = np.maximum(shared @ rng.normal(size=(5, dx)) + rng.normal(size=(n, dx)), 0)
    Y = np.maximum(shared @ rng.normal(size=(5, dy)) + 2 * rng.normal(size=(n, dy)), 0)
    return X, Y


def split(X, Y, sizes):
    assert sum(sizes) == len(X)
    stops = np.cumsum(sizes)
    return [(X[stop - size : stop], Y[stop - size : stop]) for size, stop in zip(sizes, stops, strict=True)]


def shard_cka(shards):
    return similarity(shards, [(0, 1)])[0, 1]


def errors_of(result):
    return [float(jackknife_se(replicates)) for replicates in (result.leave_one_out, result.leave_one_out_unbiased)]


def self_hsic(X):
    return pair_hsic([[X]], [(0, 0)])[0, 0]
