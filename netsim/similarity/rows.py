"""Rows of representations: the one gate for arrays of any kind, and their extent. n = images, d = features.

Whatever a user passes as rows comes through `validate_rows`: arrays, tensors, tables and lists of real numbers become
float64 or float32, and all that only looks like them is refused. `Extent` then decides, for every estimator alike,
whether rows vary at all beyond the rounding of their own type, and how to scale those whose products would overflow.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from netsim.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

Rows: TypeAlias = "np.ndarray | Tensor"

LARGEST = 1e300
"""Largest absolute value, so that differences and sums of rows are finite."""

MODERATE = 200
"""Powers of two, either way, whose products of four neither overflow nor vanish: those of float32, and more."""

ULPS = 2
"""Units in the last place by which a feature that is constant may still vary."""


def validate_rows(rows: Rows, name: str) -> np.ndarray:
    """Return rows as an array (n, d): float64 and float32 stay, all other real numbers become float64.

    Raises
    ------
    DataError
        With their `name`, unless they are real numbers, (n, d) with d at least 1, finite, and at most `LARGEST`.
    """
    array = to_array(rows, name)
    if array.ndim != 2:
        raise DataError(f"{name} must have shape (n, d), got {array.shape}. Flatten the features of each image.")
    if not array.shape[1]:
        raise DataError(f"{name} must have at least one feature per image, got shape {array.shape}.")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise DataError(
            f"{name} must be finite, got NaN or infinity in {len(bad)} of {len(array)} rows, first in row {bad[0]}. "
            "Check the images and the network's weights."
        )
    if array.dtype == np.float64 and _largest(array) > LARGEST:
        raise DataError(f"{name} must be at most {LARGEST:g} in size, got {_largest(array):.3g}. Scale it down.")
    return array


def validate_same_rows(rows: Mapping[Any, np.ndarray], *, where: str) -> None:
    """Raise DataError unless all networks have the same number of rows; `where` is appended to the subject."""
    counts = {key: len(array) for key, array in rows.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise DataError(
            f"row counts must be equal{where}, got {listed}. Give every network the same images in the same order."
        )


def to_array(rows: Rows, name: str) -> np.ndarray:
    """Convert to an array of any shape: float64 and float32 stay, all other real numbers become float64.

    Raises
    ------
    DataError
        For complex numbers, masked values, sparse arrays, text, objects, and lists of different lengths.
    """
    try:
        array = _tensor_to_array(rows, name) if _is_tensor(rows) else _other_to_array(rows, name)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        got = f"{_kind(rows)} ({first_line(error)})"
        raise DataError(f"{name} must be an array of real numbers, got {got}") from error
    if array.dtype.kind not in "fiub":
        hint = "Use the absolute value, or both parts as features." if array.dtype.kind == "c" else "Convert it first."
        raise DataError(f"{name} must be an array of real numbers, got dtype {array.dtype}. {hint}")
    return array if array.dtype in (np.float64, np.float32) else array.astype(np.float64)


def precision(rows: Rows) -> float:
    """Return the relative spacing of numbers in the type of `rows`, at least that of float64; 0 for whole numbers."""
    if _is_tensor(rows):
        tensor: Any = rows
        return float(sys.modules["torch"].finfo(tensor.dtype).eps) if tensor.is_floating_point() else 0.0
    dtype = np.asarray(rows).dtype
    return max(float(np.finfo(dtype).eps), float(np.finfo(np.float64).eps)) if dtype.kind == "f" else 0.0


class Extent:
    """Range of the rows of one network, over all shards that were added."""

    def __init__(self) -> None:
        self._origin: np.ndarray | None = None
        self._spread: np.ndarray | float = 0.0
        self._size: np.ndarray | float = 0.0
        self._precision = 0.0

    def add(self, rows: np.ndarray, precision: float) -> None:
        """Add the rows (n, d) of a shard, whose numbers have this relative spacing."""
        if not len(rows):
            return
        low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        self._origin = rows[0].astype(np.float64) if self._origin is None else self._origin
        self._spread = np.maximum(self._spread, np.maximum(high - self._origin, self._origin - low))
        self._size = np.maximum(self._size, np.maximum(high, -low))
        self._precision = max(self._precision, precision)

    @property
    def constant(self) -> bool:
        """True if no feature varies by more than the rounding of its numbers."""
        return bool(np.all(self._spread <= ULPS * self._precision * np.asarray(self._size)))

    @property
    def exponent(self) -> int:
        """Power of two by which to divide the rows; 0 unless products of four of them would overflow or vanish."""
        return _exponent(float(np.max(self._spread, initial=0.0)))


def without_rounding(rows: np.ndarray, precision: float) -> np.ndarray:
    """Return rows as they are, or all equal to the first if they differ by no more than the rounding of their type."""
    extent = Extent()
    extent.add(rows, precision)
    return np.repeat(rows[:1], len(rows), axis=0) if extent.constant else rows


def moderate(rows: np.ndarray) -> np.ndarray:
    """Scale rows by a power of two if their products would overflow or vanish; for measures that no scale changes."""
    exponent = _exponent(_largest(rows))
    return np.ldexp(rows, -exponent) if exponent else rows


def _exponent(largest: float) -> int:
    exponent = int(np.frexp(largest)[1])
    return exponent if abs(exponent) > MODERATE and largest > 0 else 0


def _largest(array: np.ndarray) -> float:
    return float(max(array.max(initial=0), -array.min(initial=0)))


def _is_tensor(rows: Any) -> bool:
    torch = sys.modules.get("torch")  # nothing is a tensor unless torch was imported
    return torch is not None and isinstance(rows, torch.Tensor)


def _tensor_to_array(rows: Any, name: str) -> np.ndarray:
    if str(rows.layout) != "torch.strided":
        raise DataError(f"{name} must be dense, got a tensor of layout {rows.layout}. Call its to_dense().")
    if rows.is_quantized:
        raise DataError(f"{name} must be an array of real numbers, got {rows.dtype}. Call its dequantize().")
    tensor = rows.detach().resolve_conj().resolve_neg().cpu()
    keeps_its_type = not tensor.dtype.is_floating_point or tensor.element_size() >= 4  # numpy has no bfloat16
    return np.asarray(tensor.numpy() if keeps_its_type else tensor.double().numpy())


def _other_to_array(rows: Any, name: str) -> np.ndarray:
    if not isinstance(rows, np.ndarray) and hasattr(rows, "toarray"):
        raise DataError(f"{name} must be dense, got {_kind(rows)}. Call its toarray().")
    whole = np.ma.asarray(rows) if _has_masks(rows) else rows  # np.asarray would show the values behind the masks
    if np.ma.isMaskedArray(whole) and np.ma.is_masked(whole):
        raise DataError(
            f"{name} must have no masked values, got {np.ma.count_masked(whole)} of {whole.size}. Drop these images."
        )
    return np.asarray(rows)


def _has_masks(rows: Any) -> bool:
    return isinstance(rows, list | tuple) and any(np.ma.isMaskedArray(row) or _has_masks(row) for row in rows)


def _kind(rows: Any) -> str:
    return type(rows).__name__
