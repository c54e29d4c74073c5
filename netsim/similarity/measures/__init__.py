"""Similarity measures other than linear CKA, one small file each. n = images, d = features, k = classes, G = shards.

A measure is a function with a registry entry:

    @measure(title="Mean canonical correlation", reference="Hotelling 1936, Biometrika 28:321-377", images=1000)
    def cca(X: np.ndarray, Y: np.ndarray) -> float:
        return float(canonical_correlations(X, Y).mean())

It takes two arrays of the same images in the same order and returns a number, NaN where undefined. `takes` declares
what the arrays contain:

    representations   (n, d) and (n, d') of two networks on one set
    predictions       logits (n, k) and (n, k) of two networks on one set
    two sets          (n, d) and (n, d) of one network, on natural images and on images inverted through another
    retrained predictions  scores (n, k) and (n, k) of linear classifiers that were retrained on the representations of
                           two networks on one set, each for a shard it was not shown

`netsim measure STORE NAME` then computes it for every cell of both matrices, with an error and a null value. Name a
measure of your own by its module, which must be importable: `netsim measure STORE lab.measures:mine`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import numpy as np

from netsim.errors import SettingsError, nearest
from netsim.similarity.rows import Rows, precision, validate_rows, validate_same_rows, without_rounding

Takes = Literal["representations", "predictions", "two sets", "retrained predictions"]
Sides = tuple[np.ndarray, np.ndarray]
Shards = Sequence[Callable[[], Sides]]
"""One function per shard that reads its two sides; call it when they are needed."""


@dataclass(frozen=True)
class Measure:
    """A similarity measure and how to apply it; `measure` documents the fields."""

    name: str
    title: str
    reference: str
    compute: Callable[..., Any]
    takes: Takes
    images: int | None
    streams: bool
    symmetric: bool


_registry: dict[tuple[str, str], Measure] = {}
"""Measures by module and name, so that a user's `procrustes` does not replace the built-in one."""


def measure(
    *,
    title: str,
    reference: str | None = None,
    source: str | None = None,
    takes: Takes = "representations",
    images: int | None = None,
    streams: bool = False,
    symmetric: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a measure under its own name.

    It stays an ordinary function, but is only ever given valid rows: float64 or float32 arrays, (n, d), finite, of the
    same images. Representations that are constant but for rounding are exactly constant.

    Parameters
    ----------
    title
        Title in tables.
    reference
        Paper and equation, or the library that computes it. Required.
    source
        Former name of `reference`, still accepted.
    takes
        Content of the two arrays; see the module.
    images
        Number of images to use, the first of the set, for a measure whose cost grows faster than n; None uses all.
    streams
        The function takes `Shards` instead of two arrays, and returns its value and the values without each shard
        (G,). Its error is then by jackknife; that of other measures is by half-sampling.
    symmetric
        Swapping the sides does not change the value, so half of the natural matrix is computed.
    """
    cited = source if reference is None else reference
    if cited is None:
        raise TypeError("measure() requires the argument 'reference'")

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name, compute = function.__name__, function if streams else _of_valid_rows(function, takes)
        module = function.__module__ or "__main__"  # None in code that is executed without a module
        _registry[module, name] = Measure(name, title, cited, compute, takes, images, streams, symmetric)
        return compute

    return register


def _of_valid_rows(function: Callable[..., Any], takes: Takes) -> Callable[..., Any]:
    """Wrap a function of two arrays, so that it is only called with valid rows."""

    @wraps(function)
    def compute(X: Rows, Y: Rows) -> Any:
        x, y = valid_sides(X, Y)
        if takes == "predictions":
            return function(x, y)
        return function(without_rounding(x, precision(X)), without_rounding(y, precision(Y)))

    return compute


def valid_sides(X: Rows, Y: Rows) -> Sides:
    """Return both sides as arrays (n, d). Raises DataError for what is no rows of numbers, or of other images."""
    sides = {"X": validate_rows(X, "X"), "Y": validate_rows(Y, "Y")}
    validate_same_rows(sides, where="")
    return sides["X"], sides["Y"]


def measures() -> Mapping[str, Measure]:
    """Return the built-in measures by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {name: entry for (module, name), entry in sorted(_registry.items(), key=_by_name) if _is_builtin(module)}


def _by_name(entry: tuple[tuple[str, str], Measure]) -> str:
    return entry[1].name


def _is_builtin(module: str) -> bool:
    return module.startswith(f"{__name__}.")


def find_measure(name: str) -> Measure:
    """Return a measure by its name or as `module:function`.

    Raises
    ------
    SettingsError
        Unknown name, a module that cannot be imported, or a function that is not registered.
    """
    if ":" not in name:
        known = measures()
        if name not in known:
            raise SettingsError(f"unknown measure {name!r}{nearest(name, known)}")
        return known[name]
    module, _, function = name.partition(":")
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise SettingsError(
            f"cannot import measure {name!r}: {error}. Is the folder of {module!r} on PYTHONPATH?"
        ) from None
    entry = _registry.get((module, function))
    if entry is None:
        raise SettingsError(
            f"{module} registers no measure {function!r}. Decorate it with @netsim.similarity.measures.measure(...)."
        )
    return entry


def read(shards: Shards, images: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Read both sides of the first `images` rows, and no more shards than hold them; all rows if None."""
    parts: list[Sides] = []
    for shard in shards:
        parts.append(valid_sides(*shard()))
        if images is not None and sum(len(x) for x, _ in parts) >= images:
            break
    return tuple(np.concatenate(side)[:images] for side in zip(*parts, strict=True))  # type: ignore[return-value]


def leave_one_out(compute: Callable[[np.ndarray, np.ndarray], float], shards: Shards) -> tuple[float, np.ndarray]:
    """Return `compute` of all rows, and without each shard (G,). Calls it G + 1 times, so it must be cheap."""
    parts = [valid_sides(*shard()) for shard in shards]
    x, y = (np.concatenate(side) for side in zip(*parts, strict=True))
    stops = np.cumsum([len(side) for side, _ in parts])
    without = []
    for (side, _), stop in zip(parts, stops, strict=True):
        keep = np.ones(len(x), dtype=bool)
        keep[stop - len(side) : stop] = False
        without.append(compute(x[keep], y[keep]))
    return compute(x, y), np.array(without)
