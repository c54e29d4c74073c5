"""Retrained classifiers predict what they do when each is trained anew, and never for images they were shown."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeClassifier

from netsim.errors import DataError
from netsim.similarity.retraining import RIDGE, retrained_scores


def drawn(rng, *, shards=5, size=8, features=6, classes=3):
    """Draw representations (G, s, d) of overlapping classes, and labels (G, s) that are not 0, 1, 2."""
    labels = rng.integers(classes, size=(shards, size))
    rows = 1.5 * rng.normal(size=(classes, features))[labels] + rng.normal(size=(shards, size, features)) + 3
    return rows, 10 + 5 * labels


def trained_anew(rows, labels, shard, estimator=RidgeClassifier):
    """Train scikit-learn's estimator on all shards but one, and predict that one."""
    every = rows.reshape(-1, rows.shape[-1])
    alpha = RIDGE * np.square(every - every.mean(axis=0)).sum(axis=1).mean()
    kept = np.delete(np.arange(len(rows)), shard)
    targets = labels[kept].ravel()
    if estimator is Ridge:
        targets = (targets[:, None] == np.unique(labels)).astype(float)
    return estimator(alpha=alpha).fit(rows[kept].reshape(-1, rows.shape[-1]), targets).predict(rows[shard])


@pytest.mark.parametrize("features", [6, 100])  # fewer and more than images
@pytest.mark.parametrize("classes", [2, 3])
def test_predictions_are_those_of_a_ridge_classifier_trained_without_the_shard(rng, features, classes):
    rows, labels = drawn(rng, features=features, classes=classes)
    scores = retrained_scores(rows, labels)
    for shard in range(5):
        np.testing.assert_allclose(scores[shard], trained_anew(rows, labels, shard, Ridge), atol=1e-9)
        predicted = np.unique(labels)[scores[shard].argmax(axis=-1)]
        np.testing.assert_array_equal(predicted, trained_anew(rows, labels, shard))


def test_labels_of_a_shard_do_not_matter_for_its_own_predictions(rng):
    rows, labels = drawn(rng)
    changed = labels.copy()
    changed[2] = rng.permutation(labels[2][::-1])
    before, after = retrained_scores(rows, labels), retrained_scores(rows, changed)
    np.testing.assert_allclose(before[2], after[2], atol=1e-12)
    assert np.abs(before[3] - after[3]).max() > 1e-3


def test_unrelated_labels_are_predicted_by_chance(rng):
    rows, labels = rng.normal(size=(20, 50, 30)), rng.integers(5, size=(20, 50))
    assert (retrained_scores(rows, labels).argmax(axis=-1) == labels).mean() == pytest.approx(0.2, abs=0.05)


def test_rotation_scale_and_shift_leave_predictions_as_they_are(rng):
    rows, labels = drawn(rng)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    before = retrained_scores(rows, labels)
    for changed in (rows @ rotation, 1e-200 * rows, 1e200 * rows, rows + 50):
        np.testing.assert_allclose(retrained_scores(changed, labels), before, atol=1e-9)


def test_what_nothing_can_be_learned_from_is_undefined(rng):
    rows, labels = drawn(rng)
    rounded = np.full(rows.shape, 0.1, np.float32)
    rounded[0, 0] = np.nextafter(np.float32(0.1), np.float32(1))
    for shards, classes in (
        (rounded, labels),
        (np.zeros_like(rows), labels),
        (rows, np.ones_like(labels)),
        (rows[:1], labels[:1]),
    ):
        assert not retrained_scores(shards, classes).any()
    assert np.isfinite(retrained_scores(rows[:2], labels[:2])).all()


def test_every_image_must_have_a_label(rng):
    rows, labels = drawn(rng)
    message = r"^labels must be \(5, 8\), got \(5, 7\)\. Give every image its class\.$"
    with pytest.raises(DataError, match=message):
        retrained_scores(rows, labels[:, 1:])
