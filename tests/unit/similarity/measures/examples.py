"""Data to test measures on, ways to change it, and slow definitions that several tests share."""

import numpy as np
from scipy.linalg import eigh

from netsim.similarity.measures import measures

ALL = measures()
ON_REPRESENTATIONS = [name for name, entry in ALL.items() if entry.takes == "representations"]
ON_PREDICTIONS = [name for name, entry in ALL.items() if entry.takes == "predictions"]


def related(rng, n=120, dx=12, dy=7):
    """Draw two representations that share half of their content, skewed as ReLU features are, of unequal variances."""
    shared = rng.normal(size=(n, 5))
    X = np.maximum(shared @ rng.normal(size=(5, dx)) + rng.normal(size=(n, dx)), 0) * np.arange(1, dx + 1) ** -1.0
    Y = np.maximum(shared @ rng.normal(size=(5, dy)) + 2 * rng.normal(size=(n, dy)), 0)
    return X, Y


def predicted(rng, n=200, k=6):
    """Draw the logits of two networks that often predict the same class."""
    shared = 2 * rng.normal(size=(n, k))
    return shared + rng.normal(size=(n, k)), shared + rng.normal(size=(n, k))


def logits_of(classes, k):
    return np.eye(k)[np.asarray(classes)]


def split(X, Y, shards):
    return [lambda side=side: side for side in zip(np.array_split(X, shards), np.array_split(Y, shards), strict=True)]


def value(name, X, Y):
    """Compute the value of any measure; measures that stream get a single shard."""
    compute = ALL[name].compute
    result = compute(split(X, Y, 1))[0] if ALL[name].streams else compute(X, Y)
    assert type(result) is float
    return result


def centred(X):
    return X - X.mean(axis=0)


def by_covariances(X, Y):
    """Solve the eigenproblem of Hotelling 1936: correlations, largest first, and variates of X of unit length."""
    x, y = centred(X), centred(Y)
    squared, coefficients = eigh(x.T @ y @ np.linalg.solve(y.T @ y, y.T @ x), x.T @ x)
    count = min(x.shape[1], y.shape[1])
    variates = x @ coefficients[:, ::-1][:, :count]
    return np.sqrt(squared[::-1][:count]), variates / np.linalg.norm(variates, axis=0)


def neighbour_sets(X, k=10):
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    nearest = [
        sorted(range(len(X)), key=lambda j, i=i: -unit[i] @ unit[j] if j != i else np.inf) for i in range(len(X))
    ]
    return [set(order[:k]) for order in nearest]


def changes(rng, X):
    """Change a representation (n, d) in several ways, by name."""
    n, d = X.shape
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return {
        "rotation": X @ rotation,
        "scale": 0.003 * X,
        "shift": X + 3 * rng.normal(size=d),
        "linear map": X @ rotation * np.geomspace(0.1, 10, d),
        "order of features": X[:, rng.permutation(d)],
        "shift of each image": X + 3 * rng.normal(size=(n, 1)),
        "scale of each image": X * rng.uniform(0.2, 5, size=(n, 1)),
    }


LINEAR = {"rotation", "scale", "shift", "linear map", "order of features"}
