"""Each measure against another library, a slow twin or a closed form; what leaves it as it is, and what does not."""

import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.linalg import eigh, orthogonal_procrustes, sqrtm, subspace_angles
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.distance import jensenshannon
from sklearn.cross_decomposition import CCA
from sklearn.metrics.pairwise import rbf_kernel

from netsim.errors import DataError, SettingsError
from netsim.similarity.measures import find_measure, measures
from netsim.similarity.measures._canonical import directions
from netsim.similarity.measures.agreement import agreement
from netsim.similarity.measures.cohen_kappa import cohen_kappa
from netsim.similarity.measures.jensen_shannon import jensen_shannon
from netsim.similarity.measures.knn_jaccard import knn_jaccard
from netsim.similarity.measures.mean_cca import mean_cca
from netsim.similarity.measures.mutual_knn import mutual_knn
from netsim.similarity.measures.procrustes import procrustes
from netsim.similarity.measures.pwcca import pwcca
from netsim.similarity.measures.rbf_cka import rbf_cka
from netsim.similarity.measures.rsa import rsa_pearson, rsa_spearman
from netsim.similarity.measures.svcca import svcca

ALL = measures()
ON_REPRESENTATIONS = [name for name, found in ALL.items() if found.takes == "representations"]
ON_PREDICTIONS = [name for name, found in ALL.items() if found.takes == "predictions"]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def related(rng, n=120, dx=12, dy=7):
    """Two representations that share half of what they say, skewed as ReLU features are, of unequal variances."""
    shared = rng.normal(size=(n, 5))
    X = np.maximum(shared @ rng.normal(size=(5, dx)) + rng.normal(size=(n, dx)), 0) * np.arange(1, dx + 1) ** -1.0
    Y = np.maximum(shared @ rng.normal(size=(5, dy)) + 2 * rng.normal(size=(n, dy)), 0)
    return X, Y


def predicted(rng, n=200, k=6):
    """Logits of two networks that often predict the same."""
    shared = 2 * rng.normal(size=(n, k))
    return shared + rng.normal(size=(n, k)), shared + rng.normal(size=(n, k))


def split(X, Y, shards):
    return [lambda side=side: side for side in zip(np.array_split(X, shards), np.array_split(Y, shards), strict=True)]


def value(name, X, Y):
    """One number of any measure, from one shard of those that stream."""
    compute = ALL[name].compute
    found = compute(split(X, Y, 1))[0] if ALL[name].streams else compute(X, Y)
    assert type(found) is float
    return found


def centred(X):
    return X - X.mean(axis=0)


# Procrustes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50)])
def test_procrustes_is_one_minus_half_the_squared_distance_scipy_finds(rng, n, d):
    X, Y = related(rng, n, d, d)
    x, y = (centred(side) / np.linalg.norm(centred(side)) for side in (X, Y))
    rotation, nuclear_norm = orthogonal_procrustes(x, y)
    assert procrustes(X, Y) == pytest.approx(1 - np.linalg.norm(x @ rotation - y) ** 2 / 2, abs=1e-10)
    assert procrustes(X, Y) == pytest.approx(nuclear_norm, abs=1e-10)
    assert 1 - procrustes(X, Y) ** 2 == pytest.approx(scipy_procrustes(X, Y)[2], abs=1e-10)


@pytest.mark.parametrize(("n", "dx", "dy"), [(60, 12, 7), (20, 50, 7), (20, 50, 30), (10, 4, 40)])
def test_procrustes_of_any_widths_is_the_trace_of_the_root_of_both_gram_matrices(rng, n, dx, dy):
    """Fidelity of Gram matrices: |X^T Y|_* = tr sqrt(X^T Y Y^T X), here by the matrix root."""
    X, Y = (centred(side) for side in related(rng, n, dx, dy))
    narrow, wide = sorted((X, Y), key=lambda side: side.shape[1])
    trace = np.trace(sqrtm(narrow.T @ wide @ wide.T @ narrow)).real
    assert procrustes(X, Y) == pytest.approx(trace / np.linalg.norm(X) / np.linalg.norm(Y), abs=1e-6)


def test_procrustes_of_unrelated_isotropic_features_is_what_random_matrices_give(rng):
    """X^T Y is sqrt(n) times a Gaussian d x d matrix, whose singular values are sqrt(d) times 8 / (3 pi) on average."""
    n, d = 8000, 40
    found = procrustes(rng.normal(size=(n, d)), rng.normal(size=(n, d)))
    assert found == pytest.approx(8 / (3 * np.pi) * np.sqrt(d / n), rel=0.02)


# Canonical correlations ----------------------------------------------------------------------------------------------


def by_covariances(X, Y):
    """Canonical correlations, largest first, and variates of X of unit length: the eigenproblem of Hotelling 1936."""
    x, y = centred(X), centred(Y)
    squared, coefficients = eigh(x.T @ y @ np.linalg.solve(y.T @ y, y.T @ x), x.T @ x)
    count = min(x.shape[1], y.shape[1])
    variates = x @ coefficients[:, ::-1][:, :count]
    return np.sqrt(squared[::-1][:count]), variates / np.linalg.norm(variates, axis=0)


@pytest.mark.parametrize(("dx", "dy"), [(12, 7), (7, 12), (1, 1)])
def test_mean_cca_is_hotellings_and_the_mean_cosine_of_scipys_subspace_angles(rng, dx, dy):
    X, Y = related(rng, dx=dx, dy=dy)
    assert mean_cca(X, Y) == pytest.approx(by_covariances(X, Y)[0].mean(), abs=1e-10)
    assert mean_cca(X, Y) == pytest.approx(np.cos(subspace_angles(centred(X), centred(Y))).mean(), abs=1e-10)


def test_mean_cca_is_the_correlation_of_scikit_learns_scores(rng):
    X, Y = related(rng, 300, 4, 3)
    scores = CCA(n_components=3, max_iter=10_000, tol=1e-12).fit_transform(X, Y)
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(scores[0].T, scores[1].T, strict=True)]
    assert mean_cca(X, Y) == pytest.approx(np.mean(correlations), abs=1e-4)


def test_mean_cca_of_gaussian_pairs_is_the_mean_of_their_correlations(rng):
    rho, n = np.array([0.9, 0.5, 0.2]), 50_000
    X = rng.normal(size=(n, 3))
    Y = rho * X + np.sqrt(1 - rho**2) * rng.normal(size=(n, 3))
    assert mean_cca(X @ rng.normal(size=(3, 3)), Y @ rng.normal(size=(3, 3))) == pytest.approx(rho.mean(), abs=0.01)


def test_mean_cca_of_unrelated_rows_is_the_mean_of_wachters_law(rng):
    """Wachter 1980: the limit of squared canonical correlations of independent sides, with a = d/n, b = d'/n."""
    n, dx, dy = 1000, 150, 250
    a, b = dx / n, dy / n
    low, high = ((np.sqrt(a * (1 - b)) - sign * np.sqrt(b * (1 - a))) ** 2 for sign in (1, -1))

    def density(square):
        return np.sqrt((high - square) * (square - low)) / (2 * np.pi * a * square * (1 - square))

    assert quad(density, low, high)[0] == pytest.approx(1, abs=1e-6)
    expected = quad(lambda square: np.sqrt(square) * density(square), low, high)[0]
    assert mean_cca(rng.normal(size=(n, dx)), rng.normal(size=(n, dy))) == pytest.approx(expected, abs=0.01)


def test_correlations_that_are_one_whatever_the_images_are_nan(rng):
    """Two unrelated spans of 10 and 9 dimensions in the n - 1 of centred rows meet for n = 19, and not for n = 20."""
    for n, forced in ((20, False), (19, True)):
        X, Y = rng.normal(size=(n, 10)), rng.normal(size=(n, 9))
        assert bool(np.cos(subspace_angles(centred(X), centred(Y))).max() > 1 - 1e-9) is forced
        for cca in (mean_cca, pwcca):
            assert bool(np.isnan(cca(X, Y))) is forced
    assert np.isnan(svcca(X, Y))


def test_svcca_keeps_the_fewest_principal_directions_with_99_percent_of_variance(rng):
    n, sizes = 400, np.sqrt([50, 30, 10, 8.5, 1, 0.5])  # 98.5 % in four, 99.5 % in five
    X = centred(np.linalg.qr(centred(rng.normal(size=(n, 6))))[0]) * sizes
    Y = X @ rng.normal(size=(6, 4)) + rng.normal(size=(n, 4))
    turned = X @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    eigenvalues, vectors = np.linalg.eigh(np.cov(Y.T))
    kept = next(c for c in range(1, 5) if eigenvalues[-c:].sum() >= 0.99 * eigenvalues.sum())
    reduced = centred(Y) @ vectors[:, -kept:]
    assert svcca(turned, Y) == pytest.approx(by_covariances(X[:, :5], reduced)[0].mean(), abs=1e-10)
    assert svcca(turned, Y) != pytest.approx(by_covariances(X[:, :4], reduced)[0].mean(), abs=1e-4)


def test_svcca_is_not_moved_by_small_features_that_mean_cca_counts_in_full(rng):
    strong = rng.normal(size=(500, 3))
    X, Y = (np.hstack([strong, 1e-3 * rng.normal(size=(500, 3))]) for _ in range(2))
    assert svcca(X, Y) == pytest.approx(1, abs=1e-4)
    assert mean_cca(X, Y) < 0.6


@pytest.mark.parametrize(("dx", "dy"), [(12, 7), (7, 12)])
def test_pwcca_weighs_the_correlations_by_the_projections_of_xs_features(rng, dx, dy):
    X, Y = related(rng, dx=dx, dy=dy)
    correlations, variates = by_covariances(X, Y)
    weights = [sum(abs(h @ x) for x in centred(X).T) for h in variates.T]
    assert pwcca(X, Y) == pytest.approx(np.dot(weights, correlations) / np.sum(weights), abs=1e-9)
    assert pwcca(X, Y) != pytest.approx(mean_cca(X, Y), abs=1e-3)


def test_pwcca_leans_to_what_x_has_most_of(rng):
    n = 2000
    shared, X_own, Y_own = rng.normal(size=(3, n))
    Y = np.column_stack([shared, Y_own])
    assert pwcca(np.column_stack([10 * shared, X_own]), Y) == pytest.approx(10 / 11, abs=0.03)
    assert pwcca(np.column_stack([shared, 10 * X_own]), Y) == pytest.approx(1 / 11, abs=0.03)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_directions_that_are_only_rounding_of_the_features_do_not_count(rng, dtype):
    X = (rng.normal(size=(300, 4)) @ rng.normal(size=(4, 20)) + 100).astype(dtype)
    basis, sizes = directions(X)
    assert basis.shape == (300, 4)
    np.testing.assert_allclose(sizes, np.linalg.svd(centred(X.astype(np.float64)))[1][:4], rtol=1e-5)
    Y = rng.normal(size=(300, 20)).astype(dtype)
    assert directions(Y)[0].shape == (300, 20)


# Representational similarity analysis --------------------------------------------------------------------------------


def rdm(X):
    """Upper triangle of 1 - correlation, image by image."""
    n = len(X)
    return np.array([1 - np.corrcoef(X[i], X[j])[0, 1] for i in range(n) for j in range(i + 1, n)])


def test_rsa_is_the_correlation_of_all_distances_taken_one_by_one(rng):
    for X, Y in (related(rng, 40), (rng.normal(size=(40, 12)), rng.normal(size=(40, 7)))):
        Y = Y + rng.normal(size=Y.shape)  # no image with all features 0
        x, y = rdm(X), rdm(Y)
        assert rsa_pearson(X, Y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-10)
        ranks = stats.rankdata(x), stats.rankdata(y)
        assert rsa_spearman(X, Y) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-10)


def test_rsa_by_hand():
    """Of three images two are opposite, at distance 2, and both at distance 1 from the third."""
    Y = np.array([[1.0, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1]])
    X = Y[[2, 1, 0]]
    assert rsa_pearson(X, Y) == pytest.approx(-0.5)  # of (1, 1, 2) and (2, 1, 1)
    assert rsa_spearman(X, Y) == pytest.approx(-0.5)


def test_rsa_of_unrelated_rows_is_about_zero(rng):
    found = [[f(rng.normal(size=(60, 20)), rng.normal(size=(60, 9))) for _ in range(40)]
             for f in (rsa_pearson, rsa_spearman)]  # fmt: skip
    assert np.mean(found, axis=1) == pytest.approx([0, 0], abs=0.02)
    assert np.min(found) < 0  # never clamped


def test_an_image_with_equal_features_has_no_correlation_distance(rng):
    X, Y = rng.normal(size=(20, 5)), rng.normal(size=(20, 5))
    X[3] = 2.5
    assert np.isnan(rsa_pearson(X, Y)) and np.isnan(rsa_spearman(Y, X))
    assert np.isnan(rsa_pearson(Y, rng.normal(size=(20, 1))))


# Nearest neighbours --------------------------------------------------------------------------------------------------


def neighbour_sets(X, k=10):
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    nearest = [
        sorted(range(len(X)), key=lambda j, i=i: -unit[i] @ unit[j] if j != i else np.inf) for i in range(len(X))
    ]
    return [set(order[:k]) for order in nearest]


def test_neighbours_in_common_are_counted_one_by_one(rng):
    X, Y = related(rng, 60)
    X, Y = X + 0.1 * rng.normal(size=X.shape), Y + 0.1 * rng.normal(size=Y.shape)
    pairs = list(zip(neighbour_sets(X), neighbour_sets(Y), strict=True))
    assert mutual_knn(X, Y) == pytest.approx(np.mean([len(a & b) / 10 for a, b in pairs]), abs=1e-12)
    assert knn_jaccard(X, Y) == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in pairs]), abs=1e-12)


def test_clusters_of_eleven_are_their_own_neighbours(rng):
    """An image is not its own neighbour: the other ten of its cluster are, in X and in Y."""
    centres = np.repeat(np.eye(4), 11, axis=0)
    X, Y = (100 * centres + rng.normal(size=centres.shape) for _ in range(2))
    assert mutual_knn(X, Y) == knn_jaccard(X, Y) == 1
    halfway = np.roll(Y, 11 // 2, axis=0)  # 6 images of each cluster stay, 5 are in the next
    assert mutual_knn(X, halfway) == pytest.approx((6 * 5 + 5 * 4) / (11 * 10))


def test_neighbours_of_unrelated_rows_are_shared_as_often_as_drawn_at_random(rng):
    n, k = 300, 10
    X, Y = rng.normal(size=(n, 15)), rng.normal(size=(n, 20))
    shared = stats.hypergeom(n - 1, k, k)
    assert mutual_knn(X, Y) == pytest.approx(shared.mean() / k, abs=0.01)
    assert shared.mean() / k == pytest.approx(k / (n - 1))
    assert knn_jaccard(X, Y) == pytest.approx(shared.expect(lambda s: s / (2 * k - s)), abs=0.006)


def test_neighbours_are_nan_where_all_others_are_neighbours(rng):
    X, Y = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    assert 0 < mutual_knn(X, Y) < 1 and 0 < knn_jaccard(X, Y) < 1
    assert np.isnan(mutual_knn(X[:11], Y[:11])) and np.isnan(knn_jaccard(X[:11], Y[:11]))


def test_neighbours_are_nan_where_an_image_is_represented_by_zeros(rng):
    """Its neighbours would be whichever come first, and the same on both sides."""
    X, Y = rng.normal(size=(2, 50, 4))
    Y[7] = 0
    assert np.isnan(mutual_knn(X, Y)) and np.isnan(knn_jaccard(Y, X))


def test_neighbours_are_nan_where_all_images_lie_in_one_direction(rng):
    X, Y = np.outer(rng.uniform(1, 2, size=50), [0.1, 0.2, 0.7]), rng.normal(size=(50, 3))
    assert np.isnan(mutual_knn(X, Y)) and np.isnan(knn_jaccard(Y, X))


# RBF CKA -------------------------------------------------------------------------------------------------------------


def song(K, L):
    """Song et al. 2012, eq. 5, without the factor, which cancels."""
    n, one = len(K), np.ones(len(K))
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    return np.trace(K @ L) + one @ K @ one * (one @ L @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ K @ L @ one)


def test_rbf_cka_is_the_ratio_of_mean_hsic_with_scikit_learns_kernel_and_leaves_out_each_shard(rng):
    X, Y = related(rng, 90)
    found, left_out = rbf_cka(split(X, Y, 3))

    def gamma(rows):
        first = rows[:30]
        distances = np.linalg.norm(first[:, None] - first[None], axis=2)[np.triu_indices(30, k=1)]
        return 1 / (2 * np.median(distances) ** 2)

    sums = []
    for at in (slice(0, 30), slice(30, 60), slice(60, 90)):
        K, L = rbf_kernel(X[at], gamma=gamma(X)), rbf_kernel(Y[at], gamma=gamma(Y))
        sums.append([song(K, L), song(K, K), song(L, L)])
    totals = [np.sum(sums, axis=0), *(np.sum(sums, axis=0) - np.array(sums))]
    expected = [cross / np.sqrt(own_x * own_y) for cross, own_x, own_y in totals]
    assert found == pytest.approx(expected[0], rel=1e-9)
    np.testing.assert_allclose(left_out, expected[1:], rtol=1e-9)


def test_rbf_cka_of_unrelated_rows_is_about_zero(rng):
    found = [rbf_cka(split(rng.normal(size=(200, 5)), rng.normal(size=(200, 3)), 2))[0] for _ in range(20)]
    assert np.mean(found) == pytest.approx(0, abs=0.01)
    assert np.min(found) < 0  # never clamped


def test_rbf_cka_of_too_few_images_a_shard_is_an_error(rng):
    with pytest.raises(DataError, match=r"^a shard must have at least 4 rows, got 3 in shard 0\."):
        rbf_cka(split(*related(rng, 6), 2))


# Predictions ---------------------------------------------------------------------------------------------------------


def logits_of(classes, k):
    return np.eye(k)[np.asarray(classes)]


def test_agreement_counts_images_of_the_same_class_and_leaves_out_each_shard():
    X, Y = logits_of([0, 1, 2, 0, 1, 2], 3), logits_of([0, 1, 1, 0, 2, 1], 3)
    found, left_out = agreement(split(X, Y, 3))
    assert found == pytest.approx(3 / 6)
    np.testing.assert_allclose(left_out, [1 / 4, 2 / 4, 3 / 4])
    assert np.isnan(agreement(split(X, Y, 1))[1]).all()


def test_agreement_of_unrelated_predictions_is_the_sum_of_products_of_frequencies(rng):
    p, q = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]
    X, Y = (logits_of(rng.choice(3, size=50_000, p=own), 3) for own in (p, q))
    assert value("agreement", X, Y) == pytest.approx(np.dot(p, q), abs=0.01)
    assert cohen_kappa(X, Y) == pytest.approx(0, abs=0.01)


def test_cohen_kappa_by_hand():
    """Cohen's table, 20 5 / 10 15: they agree on 0.7, and would on 0.5 by chance."""
    X, Y = logits_of([0] * 25 + [1] * 25, 2), logits_of([0] * 20 + [1] * 5 + [0] * 10 + [1] * 15, 2)
    assert cohen_kappa(X, Y) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert cohen_kappa(X, logits_of([1] * 25 + [0] * 25, 2)) == pytest.approx(-1)


def test_cohen_kappa_is_its_definition(rng):
    X, Y = predicted(rng)
    x, y = (np.eye(6)[side.argmax(axis=1)].mean(axis=0) for side in (X, Y))
    agreed = value("agreement", X, Y)
    assert cohen_kappa(X, Y) == pytest.approx((agreed - x @ y) / (1 - x @ y), abs=1e-12)


def test_predictions_of_one_class_agree_but_not_beyond_chance():
    X = logits_of([1] * 9, 3)
    assert value("agreement", X, X) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(cohen_kappa(X, 2 * X))
    assert cohen_kappa(X, logits_of([0, 1, 2] * 3, 3)) == pytest.approx(0)


def test_jensen_shannon_is_scipys_and_the_entropy_of_the_mixture_beyond_that_of_its_parts(rng):
    X, Y = predicted(rng)
    p, q = (np.exp(side) / np.exp(side).sum(axis=1, keepdims=True) for side in (X, Y))
    assert jensen_shannon(X, Y) == pytest.approx(np.mean(jensenshannon(p, q, axis=1) ** 2), abs=1e-12)
    beyond = stats.entropy((p + q) / 2, axis=1) - (stats.entropy(p, axis=1) + stats.entropy(q, axis=1)) / 2
    assert jensen_shannon(X, Y) == pytest.approx(beyond.mean(), abs=1e-12)


def test_jensen_shannon_by_hand():
    sure, other, unsure = np.array([[1000.0, 0]]), np.array([[0, 1000.0]]), np.array([[5.0, 5]])
    assert jensen_shannon(sure, other) == pytest.approx(np.log(2))
    quarter = -0.75 * np.log(0.75) - 0.25 * np.log(0.25) - np.log(2) / 2  # entropy of (3/4, 1/4), less half of ln 2
    assert jensen_shannon(sure, unsure) == pytest.approx(quarter)
    assert jensen_shannon(np.vstack([sure, sure]), np.vstack([other, unsure])) == pytest.approx(
        (np.log(2) + quarter) / 2
    )


def test_jensen_shannon_is_defined_where_rounding_is_all_that_differs(rng):
    X = rng.normal(size=(2000, 100))
    assert jensen_shannon(X, X + np.spacing(X)) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("name", ON_PREDICTIONS)
def test_predictions_of_different_classes_are_nan(rng, name):
    X, Y = predicted(rng)
    assert np.isnan(value(name, X, Y[:, :5]))
    assert np.isfinite(value(name, X, Y))


def test_what_does_not_change_predictions_does_not_change_their_measures(rng):
    X, Y = predicted(rng)
    per_image, increasing = X + rng.normal(size=(200, 1)), np.exp(X / 3) * 7
    assert jensen_shannon(per_image, Y) == pytest.approx(jensen_shannon(X, Y), abs=1e-12)
    assert jensen_shannon(2 * X, Y) != pytest.approx(jensen_shannon(X, Y), abs=1e-3)
    for name in ("agreement", "cohen_kappa"):
        assert value(name, per_image, Y) == value(name, increasing, Y) == value(name, X, Y)


# What all have in common ---------------------------------------------------------------------------------------------


def changes(rng, X):
    """Ways to change a representation (n, d), by name."""
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
SIMILARITIES = LINEAR - {"linear map"}
RSA = {"scale", "order of features", "shift of each image", "scale of each image"}
COSINE = {"rotation", "scale", "order of features", "scale of each image"}
UNCHANGED_BY = {
    "knn_jaccard": COSINE,
    "mean_cca": LINEAR,
    "mutual_knn": COSINE,
    "procrustes": SIMILARITIES,
    "pwcca": {"scale", "shift", "order of features"},
    "rbf_cka": SIMILARITIES,
    "rsa_pearson": RSA,
    "rsa_spearman": RSA,
    "svcca": SIMILARITIES,
}


def test_every_measure_says_here_what_leaves_it_unchanged():
    assert set(UNCHANGED_BY) == set(ON_REPRESENTATIONS)


@pytest.mark.parametrize("name", UNCHANGED_BY)
def test_a_measure_is_unchanged_by_what_its_docstring_says_and_by_nothing_else(rng, name):
    X, Y = related(rng)
    Y = Y + 0.1 * rng.normal(size=Y.shape)
    before = value(name, X, Y)
    unchanged = {kind for kind, changed in changes(rng, X).items() if abs(value(name, changed, Y) - before) < 1e-9}
    assert unchanged == UNCHANGED_BY[name]


def test_pwcca_is_unchanged_by_any_invertible_linear_map_of_the_side_without_weights(rng):
    X, Y = related(rng)
    before = pwcca(X, Y)
    assert {kind for kind, changed in changes(rng, Y).items() if abs(pwcca(X, changed) - before) < 1e-9} == LINEAR


def sides_for(rng, name):
    if name in ON_PREDICTIONS:
        return predicted(rng)
    X, Y = related(rng)
    return X, Y + 0.1 * rng.normal(size=Y.shape)


ONE_NETWORK = [*ON_REPRESENTATIONS, *ON_PREDICTIONS]


@pytest.mark.parametrize("name", ONE_NETWORK)
def test_identical_sides_are_one_or_of_no_divergence(rng, name):
    X, Y = sides_for(rng, name)
    assert value(name, X, X.copy()) == pytest.approx(0 if name == "jensen_shannon" else 1, abs=1e-10)
    assert 0.05 < value(name, X, Y) < 0.99


@pytest.mark.parametrize("name", ONE_NETWORK)
def test_the_order_of_images_does_not_matter_if_both_sides_share_it(rng, name):
    X, Y = sides_for(rng, name)
    order = rng.permutation(len(X))
    assert value(name, X[order], Y[order]) == pytest.approx(value(name, X, Y), abs=1e-10)
    assert value(name, X, Y[order]) != pytest.approx(value(name, X, Y), abs=1e-3)


@pytest.mark.parametrize("name", ONE_NETWORK)
def test_a_measure_is_symmetric_if_and_only_if_it_is_registered_so(rng, name):
    X, Y = sides_for(rng, name)
    assert (abs(value(name, X, Y) - value(name, Y, X)) < 1e-10) is ALL[name].symmetric


@pytest.mark.parametrize("name", ON_REPRESENTATIONS)
def test_a_constant_side_is_nan_without_a_warning(rng, name):
    X, Y = sides_for(rng, name)
    for constant in (np.full_like(Y, 0.1), np.zeros_like(Y), np.tile(rng.normal(size=7), (120, 1)).astype(np.float32)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isnan(value(name, X, constant)) and np.isnan(value(name, constant, X))


@pytest.mark.parametrize("name", [name for name in ONE_NETWORK if name != "rbf_cka"])
def test_no_image_and_one_image_of_representations_are_nan_without_a_warning(rng, name):
    X, Y = sides_for(rng, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(value(name, X[:0], Y[:0]))
        if name in ON_REPRESENTATIONS:
            assert np.isnan(value(name, X[:1], Y[:1]))


@pytest.mark.parametrize("name", ONE_NETWORK)
def test_float32_rows_give_what_the_same_rows_give_in_float64(rng, name):
    X, Y = (side.astype(np.float32) for side in sides_for(rng, name))
    exact = value(name, X.astype(np.float64), Y.astype(np.float64))
    assert value(name, X, Y) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("name", ["procrustes", "mean_cca", "svcca", "pwcca"])
def test_a_large_mean_does_not_change_what_is_centred(rng, name):
    X, Y = sides_for(rng, name)
    far = (X + 1000).astype(np.float32)
    assert value(name, far, Y) == pytest.approx(value(name, far.astype(np.float64) - 1000, Y), abs=1e-9)


# The registry --------------------------------------------------------------------------------------------------------


def test_the_measures_that_come_with_netsim_are_there_with_title_and_reference():
    assert set(ALL) == {*UNCHANGED_BY, "agreement", "cohen_kappa", "jensen_shannon", "stir"}
    for name, found in ALL.items():
        assert found.name == name == found.compute.__name__
        assert found.title and any(character.isdigit() for character in found.reference)  # a year at least
        assert (found.compute.__doc__ or "").strip()
        assert find_measure(name) is found


MINE = '''"""A measure of my own."""
import numpy as np
from netsim.similarity.measures import measure


@measure(title="Correlation of mean features", reference="us", images=100)
def mine(X: np.ndarray, Y: np.ndarray) -> float:
    return float(np.corrcoef(X.mean(axis=1), Y.mean(axis=1))[0, 1])
'''


def test_a_measure_of_ones_own_is_ten_lines_found_by_where_it_is(rng, tmp_path, monkeypatch):
    assert len(MINE.splitlines()) <= 10
    (tmp_path / "lab_of_a_test.py").write_text(MINE)
    with pytest.raises(
        SettingsError, match=r"^cannot import measure 'lab_of_a_test:mine': No module.* on PYTHONPATH\?$"
    ):
        find_measure("lab_of_a_test:mine")
    monkeypatch.syspath_prepend(tmp_path)
    found = find_measure("lab_of_a_test:mine")
    X, Y = related(rng)
    assert found.compute(X, Y) == pytest.approx(np.corrcoef(X.mean(axis=1), Y.mean(axis=1))[0, 1])
    assert (found.title, found.images, found.takes) == ("Correlation of mean features", 100, "representations")
    assert "mine" not in measures()
    with pytest.raises(SettingsError, match=r"^lab_of_a_test registers no measure 'yours'\. Decorate it with @netsim"):
        find_measure("lab_of_a_test:yours")


def test_an_unknown_name_is_one_error_with_the_nearest():
    with pytest.raises(SettingsError, match=r"^unknown measure 'procrustus'; did you mean 'procrustes'\?$"):
        find_measure("procrustus")


def test_a_measure_of_ones_own_takes_nothing_from_one_of_the_same_name(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(
        "from netsim.similarity.measures import measure\n\n"
        "@measure(title='Mine', reference='me')\ndef procrustes(X, Y):\n    return 0.5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert find_measure("theirs:procrustes").title == "Mine"
    assert find_measure("procrustes").title == measures()["procrustes"].title == "Procrustes similarity"
