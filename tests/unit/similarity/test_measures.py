"""The registry of measures, and properties that all of them share."""

import warnings

import numpy as np
import pytest

from netsim.errors import SettingsError
from netsim.similarity.measures import find_measure, leave_one_out, measure, measures, read
from netsim.similarity.measures.jensen_shannon import jensen_shannon
from unit.similarity.measures.examples import (
    ALL,
    LINEAR,
    ON_PREDICTIONS,
    ON_REPRESENTATIONS,
    changes,
    predicted,
    related,
    split,
    value,
)

SIMILARITIES = LINEAR - {"linear map"}
RSA = {"scale", "order of features", "shift of each image", "scale of each image"}
COSINE = {"rotation", "scale", "order of features", "scale of each image"}
UNCHANGED_BY = {
    "cka_influence": SIMILARITIES,
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


def test_every_measure_on_representations_lists_what_leaves_it_unchanged():
    assert set(UNCHANGED_BY) == set(ON_REPRESENTATIONS)


@pytest.mark.parametrize("name", UNCHANGED_BY)
def test_a_measure_is_unchanged_by_what_its_docstring_says_and_by_nothing_else(rng, name):
    X, Y = related(rng)
    Y = Y + 0.1 * rng.normal(size=Y.shape)
    before = value(name, X, Y)
    unchanged = {kind for kind, changed in changes(rng, X).items() if abs(value(name, changed, Y) - before) < 1e-9}
    assert unchanged == UNCHANGED_BY[name]


def sides_for(rng, name):
    if name in ON_PREDICTIONS:
        return predicted(rng)
    X, Y = related(rng)
    return X, Y + 0.1 * rng.normal(size=Y.shape)


ONE_NETWORK = [*ON_REPRESENTATIONS, *ON_PREDICTIONS]


@pytest.mark.parametrize("name", [name for name in ONE_NETWORK if name != "cka_influence"])
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


def test_the_measures_that_come_with_netsim_are_there_with_title_and_reference():
    assert set(ALL) == {*UNCHANGED_BY, "agreement", "cohen_kappa", "jensen_shannon", "retrained_agreement", "stir"}
    for name, entry in ALL.items():
        assert entry.name == name == entry.compute.__name__
        assert entry.title and any(character.isdigit() for character in entry.reference)  # a year at least
        assert (entry.compute.__doc__ or "").strip()
        assert find_measure(name) is entry


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
    result = find_measure("lab_of_a_test:mine")
    X, Y = related(rng)
    assert result.compute(X, Y) == pytest.approx(np.corrcoef(X.mean(axis=1), Y.mean(axis=1))[0, 1])
    assert (result.title, result.images, result.takes) == ("Correlation of mean features", 100, "representations")
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


def test_a_reference_may_be_given_by_its_former_name_and_must_be_given(tmp_path, monkeypatch):
    (tmp_path / "former.py").write_text(
        "from netsim.similarity.measures import measure\n\n"
        "@measure(title='Mine', source='me, 2020')\ndef mine(X, Y):\n    return 0.5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert find_measure("former:mine").reference == "me, 2020"
    with pytest.raises(TypeError, match=r"requires the argument 'reference'"):
        measure(title="Mine")


def test_only_the_shards_that_hold_the_first_images_are_read():
    reads = []

    def shard(index):
        reads.append(index)
        rows = np.full((4, 2), float(index))
        return rows, -rows

    shards = [lambda index=index: shard(index) for index in range(3)]
    x, y = read(shards, 6)
    assert reads == [0, 1] and x[:, 0].tolist() == [0, 0, 0, 0, 1, 1] and (y == -x).all()
    assert len(read(shards, None)[0]) == 12


def test_leave_one_out_is_the_function_of_the_other_shards(rng):
    X, Y = related(rng, 30)
    result, replicates = leave_one_out(lambda x, y: float((x.sum() - y.sum()) / len(x)), split(X, Y, 3))
    assert result == pytest.approx((X.sum() - Y.sum()) / 30)
    for g, rows in enumerate(np.split(np.arange(30), 3)):
        assert replicates[g] == pytest.approx((X.sum() - Y.sum() - X[rows].sum() + Y[rows].sum()) / 20)
