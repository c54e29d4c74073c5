"""Results as plain JSON: what `netsim results --json` prints."""

from collections.abc import Callable, Container
from itertools import permutations
from typing import Any

import numpy as np

from netsim.results.controls import QUANTITIES
from netsim.results.results import Kind, Results
from netsim.similarity.hsic import Estimator
from netsim.similarity.uncertainty import EXPECTED, jackknife_se, plain

SUFFIX: dict[Estimator, str] = {"biased": "", "unbiased": "_unbiased"}
"""Suffix of keys, by estimator."""


def to_json(results: Results) -> dict[str, Any]:
    """Convert to plain lists and mappings, with None for what is undefined."""
    return {
        "networks": list(results.networks),
        "observers": list(results.observers),
        "n": results.n,
        "shards": results.shards,
        "natural": _matrix_json(results, "natural"),
        "inverted": _matrix_json(results, "inverted"),
        **{f"difference{suffix}": results.means["difference", e].to_json() for e, suffix in SUFFIX.items()},
        "difference_over_networks": results.inference.means["difference"].to_json(),
        "asymmetry": results.inference.asymmetry.to_json(results.networks),
        "groups": dict(results.groups),
        "verdict": results.verdict.to_json() if results.verdict else None,
        "row_differences": [
            {"through": row, "minus": other}
            | difference.to_json()
            | {"p_value_holm": plain(results.adjusted_p_values[row, other])}
            for (row, other), difference in results.row_differences.items()
        ],
        "loss": {
            name: {
                "median_initial": plain(float(np.median(loss.initial))),
                "median": plain(loss.median),
                "mean": plain(float(loss.final.mean())),
                "halfway": plain(loss.halfway),
                "quantile_90": plain(loss.quantile),
                "above_tolerance": loss.above(results.tolerance),
                "distance": plain(float(np.median(loss.distance))),
                "iterations": plain(float(loss.iterations.mean())),
                "stopped": loss.stopped,
                "stalled": loss.stalled,
                "nonfinite": loss.nonfinite,
            }
            for name, loss in results.loss.items()
        },
        "controls": _controls_json(results),
        "on_converged": _on_converged_json(results),
        "converged": results.converged,
        "tolerance": results.tolerance,
        "preset": results.preset,
        "accuracy": {name: plain(summary.accuracy) for name, summary in results.summaries.items()},
        "robust_accuracy": {
            name: {"accuracy": summary.robust, "norm": summary.norm, "eps": summary.eps}
            for name, summary in results.summaries.items()
            if summary.robust is not None
        },
        "chance": results.chance,
        "classes": results.classes,
        "seed_labels": results.seed_labels,
        "weights": {name: summary.weights_hash for name, summary in results.summaries.items()},
        "twins": [_twins_json(group, results.networks) for group in results.twins],
        "left_out": {
            split: {"unreadable": unreadable, "listed": listed}
            for split, (unreadable, listed) in results.skipped.items()
        },
        "notes": list(results.notes),
        "provenance": dict(results.provenance),
    }


def _controls_json(results: Results) -> dict[str, Any]:
    """Convert each quantity of the controls: cells, standard errors, and the mean over the cells that count."""
    controls = results.controls
    quantities = {
        name: {
            "what": what,
            "cells": plain(controls.values[name].tolist()),
            "se": plain(controls.se(name).tolist()),
            "mean": controls.mean(name).to_json(),
        }
        for name, what in QUANTITIES.items()
    }
    return {"seed_only_population": results.seed_only, **quantities}


def _on_converged_json(results: Results) -> dict[str, Any] | None:
    """Convert the inverted matrix over converged images; None where it is unknown."""
    if results.on_converged is None or results.mean_on_converged is None:
        return None
    cells, *replicates = results.on_converged
    return {
        "cka_unbiased": plain(cells.tolist()),
        "se_unbiased": plain(jackknife_se(np.array(replicates)).tolist()),
        "mean_unbiased": results.mean_on_converged.to_json(),
    }


def _twins_json(group: tuple[str, ...], rows: Container[str]) -> dict[str, Any]:
    """List networks with equal weights, and their cells, (through, observer), that no mean includes."""
    cells = [[through, observer] for through, observer in permutations(group, 2) if through in rows]
    return {"networks": list(group), "left_out_of_means": cells}


def _matrix_json(results: Results, set_name: str) -> dict[str, Any]:
    """Convert one matrix: a key for each quantity and estimator."""

    def each(name: str, value: Callable[[Estimator], Any]) -> dict[str, Any]:
        return {f"{name}{suffix}": value(estimator) for estimator, suffix in SUFFIX.items()}

    def cells(kind: Kind) -> Callable[[Estimator], Any]:
        return lambda estimator: plain(results.cells(set_name, estimator, kind=kind).tolist())

    def ends(estimator: Estimator) -> Any:
        low, high = (results.cells(set_name, estimator, kind=kind) for kind in ("low", "high"))
        return plain(np.stack([low, high], axis=-1).tolist())

    def rows(estimator: Estimator) -> dict[str, Any]:
        return {name: row.to_json() for name, row in results.rows[set_name, estimator].items()}

    def columns(estimator: Estimator) -> dict[str, Any]:
        return {name: column.to_json() for name, column in results.columns[set_name, estimator].items()}

    return {
        **each("cka", cells("cka")),
        "floor": plain(results.floor(set_name).tolist()),
        **each("se", cells("se")),
        **each("interval", ends),
        "interval_of": f"{EXPECTED} (of the biased estimator)",
        **each("mean", lambda estimator: results.means[set_name, estimator].to_json()),
        **each("rows", rows),
        **each("columns", columns),
        "undefined": _undefined_json(results, set_name),
        **_inference_json(results, set_name),
    }


def _inference_json(results: Results, set_name: str) -> dict[str, Any]:
    """Convert errors over networks, the ceiling, clusters and the map of one matrix, all of unbiased values."""
    inference = results.inference
    names, clusters = inference.clusters.get(set_name, ((), None))
    _, positions = inference.maps.get(set_name, ((), None))
    return {
        "mean_over_networks": inference.means[set_name].to_json(),
        "rows_over_networks": {name: row.to_json() for name, row in inference.rows[set_name].items()},
        "columns_over_networks": {name: column.to_json() for name, column in inference.columns[set_name].items()},
        "ceiling": inference.ceiling[set_name].to_json(),
        "normalized": inference.normalized[set_name].to_json(),
        "variance_parts": inference.parts[set_name].to_json(),
        "clusters": clusters.to_json(names) if clusters else None,
        "map": positions.to_json(names) if positions else None,
    }


def _undefined_json(results: Results, set_name: str) -> list[dict[str, str]]:
    """List the cells that are undefined, with the reason."""
    reasons = {estimator: results.cells(set_name, estimator, kind="undefined") for estimator in SUFFIX}
    return [
        {"estimator": estimator, "through": through, "observer": observer, "reason": str(cells[row, column])}
        for estimator, cells in reasons.items()
        for row, through in enumerate(results.networks)
        for column, observer in enumerate(results.everyone)
        if cells[row, column]
    ]
