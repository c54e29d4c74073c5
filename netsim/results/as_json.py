"""Results as plain JSON: what `netsim results --json` prints."""

from typing import Any

import numpy as np

from netsim.results.results import Matrix, Results, interval
from netsim.similarity.uncertainty import plain


def to_json(results: Results) -> dict[str, Any]:
    """What `netsim results --json` prints: plain lists, `None` for what is undefined."""
    return {
        "networks": list(results.networks),
        "n": results.n,
        "shards": results.shards,
        "natural": _matrix_json(results, results.natural),
        "inverted": _matrix_json(results, results.inverted),
        "difference": results.difference.to_json(),
        "difference_unbiased": results.difference_unbiased.to_json(),
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
        "accuracy": {name: plain(facts.accuracy) for name, facts in results.facts.items()},
        "chance": results.chance,
        "weights": {name: facts.weights_hash for name, facts in results.facts.items()},
        "left_out": {split: {"unreadable": n, "listed": of} for split, (n, of) in results.left_out.items()},
        "provenance": results.provenance,
    }


def _matrix_json(results: Results, matrix: Matrix) -> dict[str, Any]:
    cells = {name: plain(getattr(matrix, name).tolist()) for name in ("cka", "cka_unbiased", "floor")}
    return {
        **cells,
        "se": plain(matrix.cka_se.tolist()),
        "se_unbiased": plain(matrix.cka_unbiased_se.tolist()),
        "interval": plain(np.stack(interval(results, matrix.cka, matrix.cka_se), axis=-1).tolist()),
        "interval_unbiased": plain(
            np.stack(interval(results, matrix.cka_unbiased, matrix.cka_unbiased_se), axis=-1).tolist()
        ),
        "mean": matrix.mean.to_json(),
        "mean_unbiased": matrix.mean_unbiased.to_json(),
        "rows": {name: row.to_json() for name, row in zip(results.networks, matrix.rows, strict=True)},
        "rows_unbiased": {
            name: row.to_json() for name, row in zip(results.networks, matrix.rows_unbiased, strict=True)
        },
        "undefined": [
            {"estimator": estimator, "through": through, "observer": observer, "reason": reason}
            for (estimator, through, observer), reason in matrix.undefined.items()
        ],
    }
