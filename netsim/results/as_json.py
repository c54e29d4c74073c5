"""Results as plain JSON: what `netsim results --json` prints."""

from typing import Any

import numpy as np

from netsim.results.matrices import ESTIMATORS
from netsim.results.results import Results
from netsim.similarity.hsic import Estimator
from netsim.similarity.uncertainty import plain

SUFFIX: dict[Estimator, str] = {"biased": "", "unbiased": "_unbiased"}
"""Of a key, by estimator."""


def to_json(results: Results) -> dict[str, Any]:
    """Convert to plain lists and mappings, with None for what is undefined."""
    return {
        "networks": list(results.networks),
        "n": results.n,
        "shards": results.shards,
        "natural": _matrix_json(results, "natural"),
        "inverted": _matrix_json(results, "inverted"),
        **{f"difference{suffix}": results.means["difference", e].to_json() for e, suffix in SUFFIX.items()},
        "row_differences": [
            {"through": row, "minus": other} | difference.to_json()
            for (row, other), difference in results.row_differences.items()
        ],
        "loss": {
            name: {
                "median_initial": plain(float(np.median(loss.initial))),
                "median": plain(loss.median),
                "mean": plain(float(loss.final.mean())),
                "distance": plain(float(np.median(loss.distance))),
                "iterations": plain(float(loss.iterations.mean())),
                "stopped": loss.stopped,
                "stalled": loss.stalled,
                "nonfinite": loss.nonfinite,
            }
            for name, loss in results.loss.items()
        },
        "converged": results.converged,
        "tolerance": results.tolerance,
        "preset": results.preset,
        "accuracy": {name: plain(summary.accuracy) for name, summary in results.summaries.items()},
        "chance": results.chance,
        "weights": {name: summary.weights_hash for name, summary in results.summaries.items()},
        "left_out": {split: {"unreadable": n, "listed": of} for split, (n, of) in results.skipped.items()},
        "provenance": dict(results.provenance),
    }


def _matrix_json(results: Results, set_name: str) -> dict[str, Any]:
    """Convert one matrix: a key for each quantity and estimator."""
    cells: dict[str, Any] = {}
    for estimator, suffix in SUFFIX.items():
        low, high = (results.cells(set_name, estimator, kind=kind) for kind in ("low", "high"))
        cells |= {
            f"cka{suffix}": plain(results.cells(set_name, estimator).tolist()),
            f"se{suffix}": plain(results.cells(set_name, estimator, kind="se").tolist()),
            f"interval{suffix}": plain(np.stack([low, high], axis=-1).tolist()),
            f"mean{suffix}": results.means[set_name, estimator].to_json(),
            f"rows{suffix}": {name: row.to_json() for name, row in results.rows[set_name, estimator].items()},
        }
    undefined = {estimator: results.cells(set_name, estimator, kind="undefined") for estimator in reversed(ESTIMATORS)}
    return cells | {
        "floor": plain(results.floor(set_name).tolist()),
        "undefined": [
            {"estimator": estimator, "through": through, "observer": observer, "reason": str(reasons[row, column])}
            for estimator, reasons in undefined.items()
            for row, through in enumerate(results.networks)
            for column, observer in enumerate(results.networks)
            if reasons[row, column]
        ],
    }
