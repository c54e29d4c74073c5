"""Measures of similarity beside linear CKA, one small file each. n = images, d = features, k = classes, G = shards.

A measure is a function with a registry entry:

    @measure(title="Mean canonical correlation", source="Hotelling 1936, Biometrika 28:321-377", images=1000)
    def cca(X: np.ndarray, Y: np.ndarray) -> float:
        return float(canonical_correlations(X, Y).mean())

It is given two arrays of the same images in the same order, and returns a number, NaN where it is undefined. What the
arrays hold is said by `takes`:

    representations   (n, d) and (n, d') of two networks on one set
    predictions       logits (n, k) and (n, k) of two networks on one set
    two sets          (n, d) and (n, d) of one network, on natural images and on images inverted through another

`netsim measure STORE NAME` then computes it for every cell of both matrices, with an error and a null value. A
measure of your own is named by where it is: `netsim measure STORE lab.measures:mine`, in a module Python finds.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from netsim.errors import SettingsError, nearest

Takes = Literal["representations", "predictions", "two sets"]
Sides = tuple[np.ndarray, np.ndarray]
Shards = Sequence[Callable[[], Sides]]
"""Functions that read the two sides of one shard; to be called when they are needed."""


@dataclass(frozen=True)
class Measure:
    """A measure and how it is treated; see `measure` for the fields."""

    name: str
    title: str
    source: str
    compute: Callable[..., Any]
    takes: Takes
    images: int | None
    streams: bool
    symmetric: bool


def measure(
    *,
    title: str,
    source: str,
    takes: Takes = "representations",
    images: int | None = None,
    streams: bool = False,
    symmetric: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function under its own name; it stays an ordinary function.

    title: what it is called in tables. source: paper and equation, or the library that computes it.
    images: the first so many images are enough, as its cost grows faster than n; None: all.
    streams: the function is given `Shards` and returns its value and the value without each shard (G,), instead of
    two arrays and a number. Its error is then a jackknife; that of others is by half-sampling.
    symmetric: the same whichever side comes first, so half of the natural matrix is enough.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        _registry[function.__module__, name] = Measure(name, title, source, function, takes, images, streams, symmetric)
        return function

    return register


_registry: dict[tuple[str, str], Measure] = {}
"""By module and name: a `procrustes` of your own takes nothing from the one that is here."""


def measures() -> Mapping[str, Measure]:
    """The measures that come with netsim, by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {name: found for (module, name), found in sorted(_registry.items(), key=_by_name) if _comes_with(module)}


def _by_name(entry: tuple[tuple[str, str], Measure]) -> str:
    return entry[1].name


def _comes_with(module: str) -> bool:
    return module.startswith(f"{__name__}.")


def find_measure(name: str) -> Measure:
    """A measure by its name, or by `module:function`. Raises SettingsError if there is none."""
    if ":" not in name:
        known = measures()
        if name not in known:
            raise SettingsError(f"no measure {name!r}{nearest(name, known)}")
        return known[name]
    module, _, function = name.partition(":")
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise SettingsError(f"no measure {name!r}: {error}; is the folder of {module!r} on PYTHONPATH?") from None
    found = _registry.get((module, function))
    if found is None:
        raise SettingsError(
            f"{module} registers no measure {function!r}; put @netsim.similarity.measures.measure(...) before it"
        )
    return found


def read(shards: Shards, images: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of as many shards as hold `images` rows, cut to them; of all shards for None."""
    parts: list[Sides] = []
    for shard in shards:
        parts.append(shard())
        if images is not None and sum(len(x) for x, _ in parts) >= images:
            break
    return tuple(np.concatenate(side)[:images] for side in zip(*parts, strict=True))  # type: ignore[return-value]


def left_out(compute: Callable[[np.ndarray, np.ndarray], float], shards: Shards) -> tuple[float, np.ndarray]:
    """Value over all rows, and without each shard (G,), of a function that costs little: it is called G + 1 times."""
    parts = [shard() for shard in shards]
    x, y = (np.concatenate(side) for side in zip(*parts, strict=True))
    stops = np.cumsum([len(side) for side, _ in parts])
    without = []
    for (side, _), stop in zip(parts, stops, strict=True):
        keep = np.ones(len(x), dtype=bool)
        keep[stop - len(side) : stop] = False
        without.append(compute(x[keep], y[keep]))
    return compute(x, y), np.array(without)
