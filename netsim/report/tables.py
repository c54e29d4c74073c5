"""The tables of a report as CSV, in full precision; an undefined value is an empty field."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from netsim.results.controls import QUANTITIES
from netsim.results.labelled import measures_table
from netsim.results.layers import LayerSimilarity, LayerSpec
from netsim.results.measured import Measured
from netsim.results.results import Kind, NetworkSummary, Results
from netsim.results.stopping import Verdict
from netsim.results.study import Study
from netsim.similarity.hsic import Estimator
from netsim.similarity.uncertainty import EXPECTED, Estimate
from netsim.statistics.networks import CrossedEstimate

COLUMNS: dict[Estimator, str] = {"biased": "cka", "unbiased": "cka_unbiased"}
"""Stem of the columns of an estimator."""

KINDS: dict[Kind, str] = {"cka": "", "se": "_se", "low": "_low", "high": "_high"}
"""Columns of `matrix_csv` for each estimator."""

COUNTS = ("stopped", "stalled", "nonfinite")
"""Columns of `networks_csv` that count images."""


def matrix_csv(results: Results, set_name: str) -> bytes:
    """Render one matrix in long format, one line per cell; a column says what a biased cell's interval covers."""
    table = pd.DataFrame(
        index=pd.MultiIndex.from_product([results.networks, results.everyone], names=["through", "observer"])
    )
    for estimator, stem in COLUMNS.items():
        for kind, suffix in KINDS.items():
            table[f"{stem}{suffix}"] = results.cells(set_name, estimator, kind=kind).ravel()
        if estimator == "biased":
            table[f"{stem}_interval_of"] = EXPECTED
    return _csv(table.assign(floor=results.floor(set_name).ravel(), n=results.n).reset_index())


def controls_csv(results: Results) -> bytes:
    """Render the controls of every cell of the inverted matrix, one line per quantity and cell, with errors."""
    controls = results.controls
    cells = pd.MultiIndex.from_product([results.networks, results.everyone], names=["through", "observer"])
    tables = []
    for name in QUANTITIES:
        columns = {"quantity": name, "value": controls.values[name].ravel(), "se": controls.se(name).ravel()}
        tables.append(pd.DataFrame(columns, index=cells).reset_index())
    return _csv(pd.concat(tables))


def layers_csv(spec: LayerSpec, similarities: Mapping[str, LayerSimilarity]) -> bytes:
    """Render layer similarities, one line per set, layer of the first network and layer of the second."""
    first, second = spec.networks
    return _csv(
        {
            "set": set_name,
            "network": first,
            "layer": row,
            "other_network": second,
            "other_layer": column,
            "cka_unbiased": similarity.cka[i, j],
            "cka_unbiased_se": similarity.se[i, j],
        }
        for set_name, similarity in similarities.items()
        for i, row in enumerate(spec.layers[0])
        for j, column in enumerate(spec.layers[1])
    )


def means_table(results: Results) -> pd.DataFrame:
    """Return the means, the ceilings and the similarity normalized by them, unbiased, with both errors."""
    inference = results.inference
    quantities = {"mean": inference.means, "ceiling": inference.ceiling, "normalized": inference.normalized}
    return pd.DataFrame(
        {"quantity": quantity, "set": set_name} | _crossed(estimate)
        for quantity, by_set in quantities.items()
        for set_name, estimate in by_set.items()
    )


def means_csv(results: Results) -> bytes:
    """Render `means_table`."""
    return _csv(means_table(results))


def verdict_csv(verdict: Verdict) -> bytes:
    """Render what a sweep that stops when its results are known knows, one line for each thing it asks about."""
    document = verdict.to_json()
    return _csv(
        {"of": name, "outcome": document["outcome"], "n": document["n"], "at_most": document["at_most"]}
        | {"looks": document["looks"], "value": each["value"], "se": each["se"]}
        | dict(zip(("low", "high"), each["interval"], strict=True))
        | dict(zip(("low_at_any_time", "high_at_any_time"), each["interval_at_any_time"], strict=True))
        for name, each in document["of"].items()
    )


def variances_csv(results: Results) -> bytes:
    """Render the parts of the variance of each mean, as standard errors."""
    return _csv({"set": set_name} | parts.to_json() for set_name, parts in results.inference.parts.items())


def rows_csv(results: Results) -> bytes:
    """Render the mean of each row of either matrix over the other networks, unbiased, with both errors."""
    return _lines_csv("through", results.rows, results.inference.rows)


def columns_csv(results: Results) -> bytes:
    """Render the mean of each column of either matrix over the other networks, unbiased, with both errors."""
    return _lines_csv("observer", results.columns, results.inference.columns)


def _lines_csv(
    key: str,
    means: Mapping[tuple[str, Any], Mapping[str, Estimate]],
    crossed: Mapping[str, Mapping[str, CrossedEstimate]],
) -> bytes:
    return _csv(
        {"set": set_name, key: name} | _estimate(mean) | _over_networks(crossed[set_name][name])
        for (set_name, estimator), lines in means.items()
        if estimator == "unbiased"
        for name, mean in lines.items()
    )


def asymmetry_csv(results: Results) -> bytes:
    """Render the difference of each two mirrored cells of the inverted matrix, with p-values adjusted by Holm."""
    asymmetry, names = results.inference.asymmetry, results.networks
    return _csv(
        {"through": names[i], "observer": names[j]}
        | _estimate(difference, "difference")
        | {"p_value": difference.p_value, "p_holm": asymmetry.pair_p[i, j]}
        for (i, j), difference in asymmetry.pairs.items()
    )


def row_minus_column_csv(results: Results) -> bytes:
    """Render the mean of each row of the inverted matrix minus that of its column, with both errors."""
    asymmetry = results.inference.asymmetry
    return _csv(
        {"network": name}
        | _estimate(each.images, "difference")
        | _over_networks(each)
        | {"p_value": each.images.p_value, "p_holm": p}
        for name, each, p in zip(results.networks, asymmetry.networks, asymmetry.network_p, strict=True)
    )


def clusters_csv(results: Results) -> bytes:
    """Render the clusters of either matrix, one line each; networks are separated by spaces."""
    return _csv(
        {
            "set": set_name,
            "networks": " ".join(names[member] for member in cluster.members),
            "height": cluster.height,
            "support_images": cluster.images,
            "support_networks": cluster.networks,
        }
        for set_name, (names, tree) in results.inference.clusters.items()
        for cluster in tree.clusters
    )


def map_csv(results: Results) -> bytes:
    """Render the place of each network on the map of either matrix."""
    return _csv(
        {"set": set_name, "network": name, "x": x, "y": y, "spread": spread, "shown": places.shown}
        for set_name, (names, places) in results.inference.maps.items()
        for name, (x, y), spread in zip(names, places.positions, places.spread, strict=True)
    )


def study_curves_csv(study: Study) -> bytes:
    """Render the means of each quantity by eps, of each architecture and of all (an empty field), with both errors."""
    return _csv(
        {"quantity": name, "set": set_name, "architecture": architecture, "eps": eps} | _crossed(each)
        for (name, set_name), curve in study.curves.items()
        for architecture, means in {"": curve.same, **curve.rows}.items()
        for eps, each in zip(curve.eps, means, strict=True)
    )


def study_slopes_csv(study: Study) -> bytes:
    """Render the slopes of each quantity likewise, with the p-value of both errors."""
    return _csv(
        {"quantity": name, "set": set_name, "architecture": architecture} | _crossed_test(each)
        for (name, set_name), curve in study.curves.items()
        for architecture, each in {"": curve.slope, **curve.slopes}.items()
    )


def study_cross_csv(study: Study) -> bytes:
    """Render the means of each quantity by the eps of the network inverted through and of the observer."""
    return _csv(
        {"quantity": name, "set": set_name, "through_eps": eps, "observer_eps": other} | _crossed(each)
        for (name, set_name), curve in study.curves.items()
        for eps, row in zip(curve.eps, curve.cross, strict=True)
        for other, each in zip(curve.eps, row, strict=True)
    )


def study_asymmetry_csv(study: Study) -> bytes:
    """Render (robust, standard) minus (standard, robust) of each quantity, by eps and over all (an empty field).

    On natural images, both are one.
    """
    return _csv(
        {"quantity": name, "set": set_name, "eps": eps} | _crossed_test(each)
        for (name, set_name), curve in study.curves.items()
        if set_name != "natural"
        for eps, each in zip((*curve.eps[1:], None), (*curve.asymmetries, curve.asymmetry), strict=True)
    )


def study_networks_csv(study: Study) -> bytes:
    """Render the networks of a study with accuracies, convergence, and whether they count."""
    return _csv(
        asdict(each) | {"converged": str(each.converged).lower(), "below_floor": str(each.below_floor).lower()}
        for each in study.networks
    )


def row_differences_csv(results: Results) -> bytes:
    """Render the difference of each two row means of the inverted matrix, unbiased, paired."""
    return _csv(
        {"through": row, "minus": other}
        | _estimate(difference)
        | {"p_value": difference.p_value, "p_value_holm": results.adjusted_p_values[row, other]}
        for (row, other), difference in results.row_differences.items()
    )


def losses_csv(results: Results) -> bytes:
    """Render relative losses and L2 distance from the seed, one line per network inverted through and pair."""
    return _csv(
        pd.concat(
            [
                pd.DataFrame(
                    {
                        "through": name,
                        "pair": np.arange(len(loss.initial)),
                        "initial_loss": loss.initial,
                        "final_loss": loss.final,
                        "distance": loss.distance,
                    }
                )
                for name, loss in results.loss.items()
            ]
        )
    )


def measures_csv(results: Results, measured: Mapping[str, Measured]) -> bytes:
    """Render the cells of every measure, one line for each measure, set, network inverted through, and observer."""
    return _csv(measures_table(results, measured))


def networks_table(results: Results) -> pd.DataFrame:
    """Return each network and how its inversions went; of a network that only looks, those fields are missing."""
    table = pd.DataFrame([_network(results, name) for name in results.everyone])
    return table.astype(dict.fromkeys(COUNTS, "Int64"))  # which may be missing without becoming 0.0


def networks_csv(results: Results) -> bytes:
    """Render `networks_table`."""
    return _csv(networks_table(results))


def _network(results: Results, name: str) -> dict[str, Any]:
    summary, loss = results.summaries[name], results.loss.get(name)
    described = {
        "network": name,
        "reference": summary.reference,
        "parameters": summary.parameters,
        "width": summary.width,
        "accuracy": summary.accuracy,
        "robust_accuracy": summary.robust,
        "eps": summary.eps,
        "chance": results.chance,
    }
    if loss is None:  # it only observes
        return described | _origin(summary)
    return described | {
        "median_initial_loss": np.median(loss.initial),
        "median_loss_halfway": loss.halfway,
        "median_final_loss": loss.median,
        "final_loss_90": loss.quantile,
        "tolerance": results.tolerance,
        "above_tolerance": loss.above(results.tolerance),
        "unreached": results.unreached[name].value,
        "fidelity": results.fidelity[name].value,
        "preset": results.preset,
        "converged": str(results.converged[name]).lower(),
        "median_distance": np.median(loss.distance),
        "mean_iterations": loss.iterations.mean(),
        "stopped": loss.stopped,
        "stalled": loss.stalled,
        "nonfinite": loss.nonfinite,
        **_origin(summary),
    }


def _origin(summary: NetworkSummary) -> dict[str, Any]:
    return {"trained_here": str(summary.trained_here).lower(), "weights_hash": summary.weights_hash}


def _estimate(estimate: Estimate, name: str = "mean") -> dict[str, float]:
    low, high = estimate.interval
    return {name: estimate.value, "se": estimate.se, "low": low, "high": high}


def _crossed(estimate: CrossedEstimate) -> dict[str, float]:
    return _estimate(estimate.images, "value") | _over_networks(estimate)


def _crossed_test(estimate: CrossedEstimate) -> dict[str, float]:
    return _crossed(estimate) | {"p_value": estimate.total.p_value}


def _over_networks(estimate: CrossedEstimate) -> dict[str, float]:
    """Return the errors over networks, and over both, with their degrees of freedom."""
    fields: dict[str, float] = {}
    for name, each in (("networks", estimate.networks), ("total", estimate.total)):
        low, high = each.interval
        fields |= {f"se_{name}": each.se, f"low_{name}": low, f"high_{name}": high, f"df_{name}": each.df}
    return fields


def _csv(rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> bytes:
    """Render a table. Floats have the shortest digits that read back as the same float64; not finite is empty."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    numbers = table.select_dtypes(np.floating)
    table[numbers.columns] = numbers.astype(np.float64).where(np.isfinite(numbers))
    return table.to_csv(index=False, lineterminator="\n").encode()
