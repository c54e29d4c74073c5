"""Arrays of any shape, type and container: CKA and each measure give what plain float64 gives, or refuse them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch
import xarray as xr
from hypothesis import strategies as st

from netsim import linear_cka
from netsim.errors import DataError, NetsimError
from netsim.similarity.measures import measures
from support.fuzz import inputs, mostly, outcome

MEASURES = measures()

TYPES = ("f8", "f8", "f4", "f2", ">f8", ">f4", "g", "i8", "i1", "u2", "?", "bfloat16", "c8", "O", "U3", "M8[s]")

CONTAINERS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda rows: rows,
    "Fortran": np.asfortranarray,
    "every other": lambda rows: np.repeat(np.repeat(rows, 2, axis=0), 3, axis=-1)[::2, ..., ::3],
    "reversed": lambda rows: rows[::-1].copy()[::-1],
    "read-only": lambda rows: np.frombuffer(rows.tobytes(), rows.dtype).reshape(rows.shape),
    "list": lambda rows: rows.tolist(),
    "list of rows": list,
    "tensor": lambda rows: torch.tensor(rows.tolist(), dtype=torch.from_numpy(rows).dtype),
    "tensor with gradient": lambda rows: torch.from_numpy(rows.copy()).requires_grad_(),
    "transposed tensor": lambda rows: torch.from_numpy(np.asfortranarray(rows).copy(order="F")),
    "data frame": pd.DataFrame,
    "xarray": lambda rows: xr.DataArray(rows),
    "matrix": lambda rows: rows.view(np.matrix) if rows.ndim == 2 else rows,
    "masked": lambda rows: np.ma.masked_array(rows, mask=rows > 1),
    "not masked": lambda rows: np.ma.masked_array(rows),
    "sparse": scipy.sparse.csr_matrix,
    "sparse tensor": lambda rows: torch.from_numpy(rows).to_sparse(),
    "none": lambda rows: None,
    "generator": lambda rows: (row for row in rows),
    "text": lambda rows: str(rows),
    "ragged": lambda rows: [*rows.tolist(), [1.0] * 99],
}


def quarters(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(-20, 21, size=shape) / 4


def one_hot(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.eye(99)[rng.integers(0, 3, size=shape[:1])][:, : shape[1]] if len(shape) == 2 else np.ones(shape)


def one_row(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    rows = np.ones(shape)
    rows[:1] = 2
    return rows


CONTENTS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "quarters": quarters,
    "one-hot": one_hot,
    "one row differs": lambda rng, shape: one_row(rng, shape) if shape else np.ones(()),
    "zeros": lambda rng, shape: np.zeros(shape),
    "constant": lambda rng, shape: np.broadcast_to(quarters(rng, shape[1:]), shape),
    "last bit": lambda rng, shape: 1 + np.finfo(np.float64).eps * rng.integers(0, 2, size=shape),
    "doubles": lambda rng, shape: quarters(rng, shape)[np.arange(shape[0]) // 2] if shape else np.ones(()),
    "large": lambda rng, shape: quarters(rng, shape) * 2.0**900,
    "small": lambda rng, shape: quarters(rng, shape) * 2.0**-900,
    "of all sizes": lambda rng, shape: quarters(rng, shape) * 2.0 ** rng.integers(-40, 40, size=shape[-1:]),
    "too large": lambda rng, shape: np.full(shape, 1.5e308),
    "NaN": lambda rng, shape: np.where(rng.random(shape) < 0.2, np.nan, 1.0),
    "infinity": lambda rng, shape: np.where(rng.random(shape) < 0.2, np.inf, 1.0),
}


@dataclass(frozen=True)
class Side:
    """The rows of a network: what is in them, as which type, in which container."""

    shape: tuple[int, ...]
    content: str
    dtype: str
    container: str
    rng_seed: int

    def exact(self) -> np.ndarray:
        """Return the rows in a type that numpy has."""
        rows = CONTENTS[self.content](np.random.default_rng(self.rng_seed), self.shape)
        with np.errstate(all="ignore"):
            return np.asarray(rows).astype("f4" if self.dtype == "bfloat16" else self.dtype)

    def given(self) -> Any:
        """Return the rows as a user passes them."""
        if self.dtype == "bfloat16":
            return torch.from_numpy(self.exact()).bfloat16()
        try:
            return CONTAINERS[self.container](self.exact())
        except (TypeError, ValueError, IndexError, RuntimeError):  # the container has no such rows
            return self.exact()

    def plain(self) -> np.ndarray | None:
        """Return the rows as float64 or float32, or None where they are not rows of real numbers."""
        given = self.given()
        if isinstance(given, torch.Tensor):
            if given.layout != torch.strided:
                return None
            given = (given.detach() if given.dtype != torch.bfloat16 else given.double()).numpy()
        if np.ma.is_masked(given) or isinstance(given, Iterator) or hasattr(given, "toarray"):
            return None
        try:
            rows = np.asarray(given)
        except ValueError:
            return None
        if rows.ndim != 2 or not rows.shape[1] or rows.dtype.kind not in "fiub":
            return None
        rows = rows if rows.dtype == np.float32 else rows.astype(np.float64)
        return rows if np.isfinite(rows).all() and float(np.abs(rows).max(initial=0)) <= 1e300 else None

    @property
    def precision(self) -> float:
        """Relative spacing of numbers of the type."""
        given = self.given()
        if isinstance(given, torch.Tensor):
            return torch.finfo(given.dtype).eps if given.dtype.is_floating_point else 0.0
        dtype = np.asarray(given).dtype
        return max(float(np.finfo(dtype).eps), 2.0**-52) if dtype.kind == "f" else 0.0


@st.composite
def sides(draw: st.DrawFn) -> tuple[Side, Side]:
    """Draw two sides, mostly of as many rows, mostly of real numbers."""

    def often(usual: Sequence[Any], odd: Sequence[Any]) -> Any:
        return draw(mostly(st.sampled_from(usual), st.sampled_from(odd), times=12))

    n, drawn = often([12, 13, 20, 4, 5], [3, 1, 0]), []
    for _ in range(2):
        rows = often([n], [n + 1])
        shape = often([(rows, d) for d in (1, 2, 3, 7, 30)], [(rows, 0), (rows,), (rows, 2, 2), ()])
        content = often(["quarters", "quarters", "one-hot", "of all sizes", "doubles", "large", "small"], [*CONTENTS])
        dtype, container = often(TYPES[:12], TYPES), often([*CONTAINERS][:13], [*CONTAINERS])
        if content in ("of all sizes", "large", "small") and dtype not in ("f8", ">f8", "g"):
            dtype = "f8"
        drawn.append(Side(shape, content, dtype, container, draw(st.sampled_from(range(30)))))
    return drawn[0], drawn[1]


def is_constant(side: Side, rows: np.ndarray) -> bool:
    """Return True if no feature varies by more than two units in the last place."""
    spread = np.abs(rows - rows[:1]).max(axis=0, initial=0)
    return bool((spread <= 2 * side.precision * np.abs(rows).max(axis=0, initial=0)).all())


def hsic(x: np.ndarray, y: np.ndarray, estimator: str) -> float:
    """Compute HSIC of rows by its definition, from Gram matrices."""
    n, (K, L) = len(x), (centred @ centred.T for centred in (x - x.mean(0), y - y.mean(0)))
    if estimator == "biased":
        return float((K * L).sum())
    K, L = x @ x.T, y @ y.T
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)
    return float((K * L).sum() + K.sum() * L.sum() / (n - 1) / (n - 2) - 2 * (K.sum(0) @ L.sum(0)) / (n - 2))


def unit(rows: np.ndarray) -> np.ndarray:
    """Move the first row to 0 and scale the largest number to 1, which does not change CKA."""
    moved = rows / max(np.abs(rows).max(), 2.0**-1000)
    moved = moved - moved[0]
    return np.asarray(moved / np.abs(moved).max())


@inputs(200, pair=sides(), estimator=st.sampled_from(["biased", "unbiased"]))
def test_cka_is_its_definition_in_float64_or_refused(pair: tuple[Side, Side], estimator: str) -> None:
    given = [side.given() for side in pair]
    value = outcome(lambda: linear_cka(*given, estimator), "X", "Y", "row counts")
    x, y = (side.plain() for side in pair)
    refused = x is None or y is None or len(x) != len(y) or len(x) < 4
    assert isinstance(value, DataError) == refused, value
    if refused:
        return
    assert isinstance(value, float)
    if is_constant(pair[0], x) or is_constant(pair[1], y):
        assert np.isnan(value)
        return
    x, y = unit(x.astype(np.float64)), unit(y.astype(np.float64))
    parts = [hsic(x, y, estimator), hsic(x, x, estimator), hsic(y, y, estimator)]
    scale = [hsic(x, x, "biased"), hsic(y, y, "biased")]
    if all(part > 1e-6 * biased for part, biased in zip(parts[1:], scale, strict=True)):
        assert abs(value - parts[0] / np.sqrt(parts[1] * parts[2])) < 1e-6
    elif any(part < -1e-6 * biased for part, biased in zip(parts[1:], scale, strict=True)):
        assert np.isnan(value)


@inputs(250, pair=sides(), name=st.sampled_from(sorted(MEASURES)))
def test_a_measure_is_that_of_plain_rows_or_refused(pair: tuple[Side, Side], name: str) -> None:
    def compute(X: Any, Y: Any) -> Any:
        entry = MEASURES[name]
        return entry.compute([lambda: (X, Y)])[0] if entry.streams else entry.compute(X, Y)

    given = [side.given() for side in pair]
    value = outcome(lambda: compute(*given), "X", "Y", "row counts", "rows", "shard 0", "images")
    x, y = (side.plain() for side in pair)
    if x is None or y is None or len(x) != len(y):
        assert isinstance(value, DataError)
        return
    if isinstance(value, NetsimError):
        assert isinstance(value, DataError) and len(x) < 4 and MEASURES[name].streams
        return
    assert isinstance(value, float) and (np.isnan(value) or -1.0001 <= value <= 1.0001)
    predicts = MEASURES[name].takes in ("predictions", "retrained predictions")
    if not predicts and (is_constant(pair[0], x) or is_constant(pair[1], y)):
        assert np.isnan(value)
        return
    np.testing.assert_allclose(value, compute(x.copy(), y.copy()), atol=1e-9)
