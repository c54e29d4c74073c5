"""One gate for arrays: real numbers pass, what only looks like them is refused, and rounding is no variation."""

import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import xarray as xr

from netsim.errors import DataError
from netsim.similarity.blocked import blocked_similarity
from netsim.similarity.cka import linear_cka, similarity
from netsim.similarity.hsic import ESTIMATORS
from netsim.similarity.rows import (
    Extent,
    moderate,
    precision,
    to_array,
    validate_rows,
    validate_same_rows,
    without_rounding,
)
from unit.similarity.definitions import related, shard_cka, split
from unit.similarity.measures.examples import ALL, ON_PREDICTIONS, ON_REPRESENTATIONS, value

MEASURES = [*ON_REPRESENTATIONS, *ON_PREDICTIONS]


@pytest.fixture
def sides(rng):
    """A representation, and one of related rows that is as wide, for measures of predictions too."""
    X, Y = related(rng, 60, dx=7, dy=7)
    return X + 0.1 * rng.normal(size=X.shape), Y + 0.1 * rng.normal(size=Y.shape)


# ---- what passes


def test_rows_keep_single_and_double_precision_and_become_double_otherwise():
    for dtype, kept in (
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float16, np.float64),
        (np.longdouble, np.float64),
        (">f8", np.float64),
        (int, np.float64),
        (bool, np.float64),
        (np.uint8, np.float64),
    ):
        array = validate_rows(np.ones((3, 2), dtype=dtype), "X")
        assert array.dtype == kept and (array == 1).all()
    assert validate_rows([[1, 2], [3, 4]], "X").tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "kind",
    [
        list,
        lambda X: X.tolist(),
        pd.DataFrame,
        lambda X: xr.DataArray(X, dims=("image", "feature")),
        np.asfortranarray,
        lambda X: np.ma.masked_array(X, mask=False),
        torch.tensor,
        lambda X: torch.tensor(X, requires_grad=True),
        lambda X: torch.nn.Parameter(torch.tensor(X)),
        lambda X: torch.complex(torch.zeros(X.shape, dtype=torch.float64), -torch.tensor(X)).conj().imag,
    ],
)
def test_the_same_numbers_in_any_container_are_the_same_rows(sides, kind):
    X, Y = sides
    np.testing.assert_array_equal(validate_rows(kind(X), "X"), X)
    assert linear_cka(kind(X), Y) == linear_cka(X, Y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.uint8, torch.bool])
def test_a_tensor_of_any_real_type_is_its_own_numbers_in_double_precision(dtype):
    tensor = torch.tensor([[0, 1], [1, 3]]).to(dtype)
    assert validate_rows(tensor, "X").tolist() == tensor.double().tolist()
    assert validate_rows(tensor, "X").dtype == np.float64


def test_half_precision_does_not_overflow(rng):
    X = (rng.uniform(-6e4, 6e4, size=(60, 8))).astype(np.float16)
    assert linear_cka(X, X.astype(np.float64)) == pytest.approx(1, abs=1e-12)


# ---- what is refused

LOOK_ALIKES = [
    (lambda X: X + 1j, r"must be an array of real numbers, got dtype complex128\. Use the absolute value"),
    (lambda X: torch.tensor(X + 1j), r"must be an array of real numbers, got dtype complex128\. Use the absolute"),
    (lambda X: np.ma.masked_where(X > 1, X), r"must have no masked values, got \d+ of 420\. Drop these images\."),
    (lambda X: list(np.ma.masked_where(X > 1, X)), r"must have no masked values, got \d+ of 420\. Drop these images"),
    (scipy.sparse.csr_matrix, r"must be dense, got csr_matrix\. Call its toarray\(\)\."),
    (scipy.sparse.coo_array, r"must be dense, got coo_array\. Call its toarray\(\)\."),
    (lambda X: torch.tensor(X).to_sparse(), r"must be dense, got a tensor of layout torch.sparse_coo\. Call its to_d"),
    (
        lambda X: torch.quantize_per_tensor(torch.tensor(X).float(), 0.1, 0, torch.qint8),
        r"must be an array of real numbers, got torch.qint8\. Call its dequantize",
    ),
    (lambda X: torch.tensor(X).to("meta"), r"must be an array of real numbers, got Tensor \("),
    (lambda X: X.astype(object), r"must be an array of real numbers, got dtype object\. Convert it first\."),
    (lambda X: [[Fraction(1, 3)] * 7] * len(X), r"must be an array of real numbers, got dtype object\."),
    (lambda X: X.astype(str), r"must be an array of real numbers, got dtype <U\d+\. Convert it first\."),
    (lambda X: X.astype("datetime64[s]"), r"must be an array of real numbers, got dtype datetime64\[s\]\."),
    (lambda X: X.astype([("a", float)]), r"must be an array of real numbers, got dtype \[\('a', '<f8'\)\]\."),
    (lambda X: pd.DataFrame(X).assign(name="x"), r"must be an array of real numbers, got dtype object\."),
    (lambda X: [*X.tolist()[1:], [1.0]], r"must be an array of real numbers, got list \(.*inhomogeneous shape"),
    (lambda X: None, r"must be an array of real numbers, got dtype object\."),
    (lambda X: (row for row in X), r"must be an array of real numbers, got dtype object\."),
    (lambda X: X[:, 0], r"must have shape \(n, d\), got \(60,\)\. Flatten"),
    (lambda X: X[..., None], r"must have shape \(n, d\), got \(60, 7, 1\)\. Flatten"),
    (lambda X: X[:, :0], r"must have at least one feature per image, got shape \(60, 0\)\."),
    (lambda X: torch.tensor(X[:, :0]), r"must have at least one feature per image, got shape \(60, 0\)\."),
    (lambda X: 3.0, r"must have shape \(n, d\), got \(\)\. Flatten"),
    (lambda X: np.where(X > 1, np.nan, X), r"must be finite, got NaN or infinity in \d+ of 60 rows, first in row"),
    (lambda X: np.full(X.shape, np.float16(7e4)), r"must be finite, got NaN or infinity in 60 of 60 rows"),
    (lambda X: np.sign(X) * 1.5e308, r"must be at most 1e\+300 in size, got 1\.5e\+308\. Scale it down\."),
]


@pytest.mark.filterwarnings("ignore:overflow", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("spoil", "message"), LOOK_ALIKES)
def test_what_only_looks_like_rows_is_refused_by_name_by_cka_and_by_every_measure(sides, spoil, message):
    X, Y = sides
    with pytest.raises(DataError, match=rf"^Y {message}"):
        linear_cka(X, spoil(Y))
    with pytest.raises(DataError, match=rf"^'b' in shard 0 {message}"):
        similarity([{"a": X, "b": spoil(Y)}], [("a", "b")])
    with pytest.raises(DataError, match=rf"^'b' in shard 0 {message}"):
        blocked_similarity([{"a": X, "b": spoil(Y)}], [("a", "b")])
    for name in MEASURES:
        if not ALL[name].streams:
            with pytest.raises(DataError, match=rf"^X {message}"):
                ALL[name].compute(spoil(X), Y)


def test_sides_of_different_images_are_refused_by_every_measure(sides):
    X, Y = sides
    for name in MEASURES:
        with pytest.raises(DataError, match=r"^row counts must be equal.*, got "):
            ALL[name].compute([lambda: (X, Y[:50])]) if ALL[name].streams else ALL[name].compute(X, Y[:50])


def test_networks_with_equal_row_counts_pass():
    validate_same_rows({"a": np.ones((3, 2)), "b": np.ones((3, 5))}, where="")
    with pytest.raises(DataError, match=r"^row counts must be equal in shard 7, got a 3, b 4\."):
        validate_same_rows({"a": np.ones((3, 2)), "b": np.ones((4, 2))}, where=" in shard 7")


# ---- rounding is no variation


def jitter(rng, shape, dtype):
    """Return rows that are constant but for the last bit."""
    row = rng.uniform(0.1, 3, size=shape[1]).astype(dtype)
    return np.where(rng.random(shape) < 0.5, row, np.nextafter(row, dtype(9)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_rows_that_are_constant_but_for_the_last_bit_are_constant(rng, dtype, space):
    X, Y = jitter(rng, (60, 8), dtype), rng.normal(size=(60, 5))
    assert np.ptp(X.astype(np.float64), axis=0).max() > 0
    for estimator in ESTIMATORS:
        assert np.isnan(linear_cka(X, Y, estimator)) and np.isnan(linear_cka(Y, X, estimator))
    result = shard_cka(split(X, Y, (20, 40)))
    assert np.isnan([result.cka, result.cka_unbiased, *result.leave_one_out, *result.leave_one_out_unbiased]).all()
    assert result.undefined == "0: constant: every image has the same representation"
    for kernel in ("linear", "rbf"):
        assert np.isnan(blocked_similarity(split(X, Y, (20, 40)), [(0, 1)], kernel=kernel)[0, 1].cka)


@pytest.mark.parametrize("name", ON_REPRESENTATIONS)
def test_every_measure_takes_rounding_for_what_it_is(rng, name):
    X, Y = jitter(rng, (60, 4), np.float32), rng.normal(size=(60, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(value(name, X, Y)) and np.isnan(value(name, Y, X))


def test_rows_that_vary_by_more_than_rounding_in_one_feature_or_one_shard_are_not_constant(rng):
    X, Y = jitter(rng, (60, 8), np.float32), rng.normal(size=(60, 5))
    varied = X.copy()
    varied[:, 3] *= 1 + np.float32(1e-5) * rng.normal(size=60).astype(np.float32)
    assert np.isfinite(linear_cka(varied, Y))
    large = np.concatenate([np.full((60, 1), 1e9), rng.normal(size=(60, 3))], axis=1).astype(np.float32)
    assert linear_cka(large, large[:, 1:]) == pytest.approx(1, abs=1e-6)  # one constant feature says nothing of others
    late = np.concatenate([np.full((30, 8), 2.0), np.full((30, 8), 3.0)])
    assert np.isfinite(shard_cka(split(late, Y, (30, 30))).cka)


def test_precision_is_that_of_the_type():
    assert precision(np.float32([1])) == precision(torch.ones(1)) == np.finfo(np.float32).eps
    assert precision(np.float16([1])) == precision(torch.ones(1).half()) == np.finfo(np.float16).eps
    assert precision(torch.ones(1).bfloat16()) == 2**-7
    assert precision(np.longdouble([1])) == precision([1.0]) == np.finfo(np.float64).eps
    assert precision([1]) == precision(torch.ones(1, dtype=torch.int64)) == 0


def test_an_extent_covers_all_shards_and_none_is_constant():
    extent = Extent()
    assert extent.constant and extent.exponent == 0
    for rows in (np.zeros((0, 2)), np.full((2, 2), 5.0)):
        extent.add(rows, 1e-16)
        assert extent.constant
    extent.add(np.full((2, 2), 5.1), 1e-16)
    assert not extent.constant


def test_rows_without_rounding_are_the_same_rows_or_all_the_first(rng):
    X = jitter(rng, (9, 3), np.float32)
    assert (without_rounding(X, precision(X)) == X[0]).all()
    Y = rng.normal(size=(9, 3))
    assert without_rounding(Y, precision(Y)) is Y
    assert without_rounding(Y[:0], precision(Y)).shape == (0, 3)


# ---- scale


@pytest.mark.parametrize("scale", [1e80, 1e-90, 1e200, 1e-200, 1e290, 1e-290])
def test_a_scale_does_not_change_cka(rng, space, scale):
    X, Y = related(rng, 60)
    plain, scaled = shard_cka(split(X, Y, (20, 40))), shard_cka(split(scale * X, Y, (20, 40)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for estimator in ESTIMATORS:
            assert linear_cka(scale * X, Y, estimator) == pytest.approx(linear_cka(X, Y, estimator), abs=1e-12)
            assert linear_cka(scale * X, Y / scale, estimator) == pytest.approx(linear_cka(X, Y, estimator), abs=1e-12)
    assert (scaled.cka, scaled.floor) == pytest.approx((plain.cka, plain.floor), abs=1e-12)
    np.testing.assert_allclose(scaled.leave_one_out_unbiased, plain.leave_one_out_unbiased, atol=1e-12)


@pytest.mark.parametrize("name", ON_REPRESENTATIONS)
def test_a_large_or_small_scale_changes_no_measure(sides, name):
    X, Y = sides
    for scale in (1e-200, 1e200):
        assert value(name, X * scale, Y) == pytest.approx(value(name, X, Y), abs=1e-10)


def test_a_power_of_two_changes_no_bit_and_ordinary_rows_are_not_copied(rng):
    X, Y = related(rng, 60)
    assert linear_cka(X * 2.0**700, Y * 2.0**-700) == linear_cka(X, Y)
    assert moderate(X) is X and moderate(X * 2.0**-150) is not X
    np.testing.assert_array_equal(moderate(X * 2.0**500), np.ldexp(X, -np.frexp(X.max())[1]))
    assert moderate(np.zeros((3, 2))).any() == 0 and moderate(np.zeros((0, 2))).shape == (0, 2)


def test_arrays_of_any_shape_are_converted():
    assert to_array(torch.ones(2, 3, 4), "X").shape == (2, 3, 4)
