"""The influence of an image must be the derivative of CKA in its weight, and what leaving it out changes."""

import numpy as np
import pytest

from netsim.errors import DataError
from netsim.similarity import influence
from netsim.similarity.cka import linear_cka
from netsim.similarity.influence import image_influence, largest_share
from unit.similarity.definitions import related


def weighted_cka(X, Y, weights):
    """Compute CKA of images that count as often as their weights say, which need not be whole."""

    def covariance(a, b):
        return (weights[:, None] * a).T @ b - np.outer(weights @ a, weights @ b) / weights.sum()

    def norm(a, b):
        return np.linalg.norm(covariance(a, b))

    return norm(X, Y) ** 2 / (norm(X, X) * norm(Y, Y))


@pytest.mark.parametrize("offset", [0, 30])
@pytest.mark.parametrize(("dx", "dy"), [(3, 4), (12, 7), (90, 60), (90, 3)])
def test_influence_is_the_derivative_of_cka_in_the_weight_of_an_image(rng, monkeypatch, dx, dy, offset):
    """In feature and in Gram space, and across the edges of blocks."""
    monkeypatch.setattr(influence, "BLOCK", 7)
    X, Y = related(rng, 40, dx, dy)
    step, slopes = 1e-4, []
    for change in step * np.eye(40):
        slopes.append((weighted_cka(X, Y, 1 + change) - weighted_cka(X, Y, 1 - change)) / (2 * step))
    assert image_influence(X + offset, Y - offset) == pytest.approx(np.array(slopes), abs=1e-8)


def test_influence_is_what_leaving_an_image_out_changes_in_the_limit_of_many_images(rng):
    errors = []
    for n in (100, 400, 1600):
        X, Y = related(rng, n)
        images = range(0, n, n // 50)
        without = [linear_cka(X, Y) - linear_cka(np.delete(X, i, axis=0), np.delete(Y, i, axis=0)) for i in images]
        values = image_influence(X, Y)[list(images)]
        errors.append(np.abs(values - without).max() / np.abs(without).max())
    assert errors[0] < 0.2 and errors[2] < 0.03 and errors[2] < errors[1] < errors[0]


def test_influences_add_up_to_zero_and_change_with_no_rotation_shift_or_scale(rng):
    X, Y = related(rng, 60)
    values = image_influence(X, Y)
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    assert values.sum() == pytest.approx(0, abs=1e-12) and np.abs(values).max() > 1e-3
    assert image_influence(2.0**600 * X @ rotation + 2.0**598, Y / 7) == pytest.approx(values, abs=1e-10)


def test_one_image_far_out_carries_the_value(rng):
    """Davari et al. 2023: one image that both sides place far out makes unrelated sides look alike."""
    X, Y = rng.normal(size=(2, 500, 20))
    assert largest_share(image_influence(X, Y)) < 0.03
    X[40], Y[40] = 30, -30
    values = image_influence(X, Y)
    assert linear_cka(X, Y) > 0.9 and values.argmax() == 40
    assert largest_share(values) > 0.4  # the positive influences add up to half of all, by size


def test_influence_on_what_cannot_change_is_undefined(rng):
    X, _ = related(rng, 30)
    assert np.isnan(image_influence(X, np.full((30, 4), 0.1))).all()
    assert np.isnan(largest_share(image_influence(X, np.full((30, 4), 0.1))))
    assert np.isnan(largest_share(image_influence(X, 3 * X + 1)))


def test_influence_refuses_what_is_no_pair_of_representations(rng):
    X, Y = related(rng, 10)
    with pytest.raises(DataError, match=r"^Y must be an array of real numbers, got dtype complex128\."):
        image_influence(X, Y + 1j)
    with pytest.raises(DataError, match=r"^row counts must be equal, got X 10, Y 9\."):
        image_influence(X, Y[:9])
    with pytest.raises(DataError, match=r"^CKA requires at least 4 rows, got 3 in X and Y\. Use more images\.$"):
        image_influence(X[:3], Y[:3])
