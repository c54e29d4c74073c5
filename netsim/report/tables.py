"""The tables of a report as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from netsim.results.layers import LayerSimilarity, LayerSpec
from netsim.results.results import Matrix, Results, interval
from netsim.similarity.uncertainty import Estimate


def row_and_column_means(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) mean over observers and (M,) mean over through, without the diagonal; NaN for a single network."""
    rest = np.where(np.eye(len(values), dtype=bool), 0, values)
    others = max(len(values) - 1, 0) or np.nan
    return rest.sum(axis=1) / others, rest.sum(axis=0) / others


def matrix_csv(results: Results, matrix: Matrix) -> bytes:
    """Long format, one line a cell, full precision; an undefined value is an empty field."""
    arrays: dict[str, np.ndarray] = {}
    for kind in ("cka", "cka_unbiased"):
        values, se = getattr(matrix, kind), getattr(matrix, f"{kind}_se")
        low, high = interval(results, values, se)
        arrays |= {kind: values, f"{kind}_se": se, f"{kind}_low": low, f"{kind}_high": high}
    arrays["floor"] = matrix.floor
    header = ("through", "observer", *arrays, "n")
    return _csv(
        header,
        (
            (through, observer, *(_field(array[row, column]) for array in arrays.values()), results.n)
            for row, through in enumerate(results.networks)
            for column, observer in enumerate(results.networks)
        ),
    )


def layers_csv(spec: LayerSpec, found: Mapping[str, LayerSimilarity]) -> bytes:
    """One line for each set, layer of the first network and layer of the second."""
    first, second = spec.networks
    return _csv(
        ("set", "network", "layer", "other_network", "other_layer", "cka_unbiased", "cka_unbiased_se"),
        (
            (set_name, first, row, second, column, _field(similarity.cka[i, j]), _field(similarity.se[i, j]))
            for set_name, similarity in found.items()
            for i, row in enumerate(spec.layers[0])
            for j, column in enumerate(spec.layers[1])
        ),
    )


def rows_csv(results: Results) -> bytes:
    """One line a row of either matrix: its mean over observers, unbiased."""
    sets = {"natural": results.natural, "inverted": results.inverted}
    return _csv(
        ("set", "through", *ESTIMATE),
        (
            (set_name, name, *_estimate(row))
            for set_name, matrix in sets.items()
            for name, row in zip(results.networks, matrix.rows_unbiased, strict=True)
        ),
    )


def row_differences_csv(results: Results) -> bytes:
    """One line for each two rows of the inverted matrix: the difference of their means, unbiased, paired."""
    return _csv(
        ("through", "minus", *ESTIMATE, "p_value"),
        (
            (row, other, *_estimate(difference), _field(difference.p_value))
            for (row, other), difference in results.row_differences.items()
        ),
    )


ESTIMATE = ("mean", "se", "low", "high")


def _estimate(estimate: Estimate) -> tuple[str, ...]:
    return tuple(_field(value) for value in (estimate.value, estimate.se, *estimate.interval))


def losses_csv(results: Results) -> bytes:
    """One line for each pair and network inverted through: relative losses, L2 distance from the seed."""
    return _csv(
        ("through", "pair", "initial_loss", "final_loss", "distance"),
        (
            (name, pair, *map(_field, values))
            for name in results.networks
            for loss in (results.loss[name],)
            for pair, values in enumerate(zip(loss.initial, loss.final, loss.distance, strict=True))
        ),
    )


def networks_csv(results: Results) -> bytes:
    """One line a network: who it is, and how its inversions went."""
    header = (
        "network",
        "reference",
        "parameters",
        "width",
        "accuracy",
        "chance",
        "median_initial_loss",
        "median_final_loss",
        "tolerance",
        "preset",
        "converged",
        "median_distance",
        "mean_iterations",
        "stopped",
        "stalled",
        "nonfinite",
        "trained_here",
        "weights_hash",
    )
    rows = []
    for name in results.networks:
        facts, loss = results.facts[name], results.loss[name]
        rows.append(
            (
                name,
                facts.reference,
                facts.parameters,
                facts.width,
                _field(facts.accuracy),
                _field(results.chance),
                _field(np.median(loss.initial)),
                _field(loss.median),
                _field(results.tolerance),
                results.preset,
                str(results.converged[name]).lower(),
                _field(np.median(loss.distance)),
                _field(loss.iterations.mean()),
                loss.stopped,
                loss.stalled,
                loss.nonfinite,
                str(facts.trained_here).lower(),
                facts.weights_hash,
            )
        )
    return _csv(header, rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _field(value: float) -> str:
    """The shortest digits that read back as the same float64; empty, which readers take as missing, if not finite."""
    return repr(float(value)) if np.isfinite(value) else ""
