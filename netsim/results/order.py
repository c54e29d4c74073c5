"""The order of networks in what is shown: as given, by name, by clusters, or by their means.

An order changes no value. M = networks, C = M + those that only observe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from netsim.errors import SettingsError, nearest
from netsim.results.controls import Controls
from netsim.results.matrices import Cells
from netsim.results.measured import Measured, MeasuredMatrix
from netsim.results.results import Results
from netsim.similarity.uncertainty import Estimate

T = TypeVar("T")


def ordered(results: Results, order: str = "given") -> Results:
    """Return results with their networks, and those that only observe, in another order.

    Parameters
    ----------
    results
        The results of a run, or of a view of one.
    order
        "given" is the order of the settings, or of `--networks`. "name" is alphabetical. "clustered" puts networks
        beside those that they are most similar to on inverted images, as the tree of the report does. "mean" is by
        the mean of a network's row after inversion, the highest first; of one that only observes, of its column.

    Raises
    ------
    SettingsError
        If there is no such order.
    """
    check_order(order)
    networks, observers = ORDERS[order](results)
    return _rearranged(results, tuple(networks), tuple(observers))


def ordered_measures(measured: Mapping[str, Measured], results: Results, order: str) -> dict[str, Measured]:
    """Return measures with their matrices in the order of `ordered`; `results` are those of the same view."""
    check_order(order)
    cells = _cells_of(results, *ORDERS[order](results))

    def matrix(each: MeasuredMatrix) -> MeasuredMatrix:
        value, se, null, replicates = (
            cells(part, axis=0) for part in (each.value, each.se, each.null, each.replicates)
        )
        return replace(each, value=value, se=se, null=null, replicates=replicates)

    return {
        name: replace(each, natural=matrix(each.natural) if each.natural else None, inverted=matrix(each.inverted))
        for name, each in measured.items()
    }


def check_order(order: str) -> None:
    """Raise SettingsError unless it is one of `ORDERS`."""
    if order not in ORDERS:
        raise SettingsError(f"unknown order {order!r}{nearest(order, ORDERS)}")


def _by_name(results: Results) -> tuple[Sequence[str], Sequence[str]]:
    return sorted(results.networks), sorted(results.observers)


def _by_mean(results: Results) -> tuple[Sequence[str], Sequence[str]]:
    rows, columns = (means["inverted", "unbiased"] for means in (results.rows, results.columns))
    return sorted(results.networks, key=_highest_first(rows)), sorted(results.observers, key=_highest_first(columns))


def _highest_first(means: Mapping[str, Estimate]) -> Callable[[str], float]:
    """Return a key that sorts names by their means, undefined ones last."""
    return lambda name: -float(np.nan_to_num(means[name].value, nan=-np.inf))


def _clustered(results: Results) -> tuple[Sequence[str], Sequence[str]]:
    """List networks as the tree of inverted similarity has them; those that it lacks come last."""
    names, tree = results.inference.clusters.get("inverted", ((), None))
    leaves = [names[leaf] for leaf in tree.order] if tree else []
    return [*leaves, *(name for name in results.networks if name not in leaves)], results.observers


ORDERS: dict[str, Callable[[Results], tuple[Sequence[str], Sequence[str]]]] = {
    "given": lambda results: (results.networks, results.observers),
    "name": _by_name,
    "clustered": _clustered,
    "mean": _by_mean,
}
"""Orders by name: networks and observers of results, in that order."""


def _rearranged(results: Results, networks: tuple[str, ...], observers: tuple[str, ...]) -> Results:
    everyone, cells = (*networks, *observers), _cells_of(results, networks, observers)
    return replace(
        results,
        networks=networks,
        observers=observers,
        rows={key: _by(means, networks) for key, means in results.rows.items()},
        columns={key: _by(means, everyone) for key, means in results.columns.items()},
        row_differences=_differences(results.row_differences, networks),
        matrices={name: _matrix(matrix, cells) for name, matrix in results.matrices.items()},
        groups=_by(results.groups, everyone),
        loss=_by(results.loss, networks),
        summaries=_by(results.summaries, everyone),
        controls=_controls(results.controls, cells),
        on_converged=None if results.on_converged is None else cells(results.on_converged, axis=1),
    )


def _cells_of(results: Results, networks: Sequence[str], observers: Sequence[str]) -> Callable[..., np.ndarray]:
    """Return what takes the cells of networks and observers, in their order, from an array; `axis` is that of rows."""
    rows = [results.networks.index(name) for name in networks]
    columns = [results.everyone.index(name) for name in (*networks, *observers)]

    def cells(array: np.ndarray, *, axis: int) -> np.ndarray:
        return array.take(rows, axis=axis).take(columns, axis=axis + 1)

    return cells


def _by(mapping: Mapping[str, T], names: Sequence[str]) -> dict[str, T]:
    return {name: mapping[name] for name in names}


def _matrix(matrix: Cells, cells: Callable[..., np.ndarray]) -> Cells:
    arrays = {name: cells(getattr(matrix, name), axis=1) for name in ("cka", "leave_one_out", "undefined")}
    return Cells(**arrays, floor=cells(matrix.floor, axis=0), comparable=cells(matrix.comparable, axis=0))


def _controls(controls: Controls, cells: Callable[..., np.ndarray]) -> Controls:
    values, without = (
        {name: cells(each, axis=0) for name, each in by_name.items()}
        for by_name in (controls.values, controls.leave_one_out)
    )
    return Controls(values, without, cells(controls.comparable, axis=0))


def _differences(
    differences: Mapping[tuple[str, str], Estimate], networks: Sequence[str]
) -> dict[tuple[str, str], Estimate]:
    """Subtract later rows from earlier ones, in the order of networks."""
    place = {name: position for position, name in enumerate(networks)}
    turned = {
        (first, other) if place[first] < place[other] else (other, first): difference
        if place[first] < place[other]
        else replace(difference, value=-difference.value)
        for (first, other), difference in differences.items()
    }
    return dict(sorted(turned.items(), key=lambda item: (place[item[0][0]], place[item[0][1]])))
