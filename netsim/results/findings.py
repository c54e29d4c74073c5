"""The results of a run in sentences and small tables, shared by the terminal, the Prefect UI and the report."""

from collections.abc import Iterable, Sequence

import numpy as np

from netsim.results.matrices import ESTIMATORS, SETS
from netsim.results.results import Results
from netsim.results.twins import counted_mean
from netsim.similarity.hsic import Estimator
from netsim.similarity.uncertainty import Estimate
from netsim.statistics.networks import CrossedEstimate

SHOWN_PAIRS = 3
"""Pairs of networks that `asymmetry_line` lists; JSON, CSV and the report have all."""

NETWORK_TABLE = "Networks and their inversions: medians of relative loss, and of L2 distance from the seed"
"""Title of `network_table`."""


def headline(results: Results) -> str:
    """Summarize the unbiased means in one sentence, with both errors; an undefined mean is an en dash."""
    means = _means(results, "unbiased")
    over = [results.inference.means[name].networks for name in ("natural", "inverted", "difference")]
    digits = digits_for(*(mean.se for mean in means))
    natural, inverted, difference = (
        with_errors(mean, networks, digits) for mean, networks in zip(means, over, strict=True)
    )
    return (
        f"Natural similarity {natural}; after inversion {inverted}; difference {difference} "
        f"(unbiased CKA, {_basis(results)})"
    )


def biased_headline(results: Results) -> str:
    """Summarize the biased means in one sentence, with the floors to compare them with."""
    means = _three_means(*_means(results, "biased"))
    floors = f"{number(floor_mean(results, 'natural'), 2)} and {number(floor_mean(results, 'inverted'), 2)}"
    return f"{means} (biased CKA; independent representations would give {floors} on natural and inverted images)"


def intervals(results: Results) -> str:
    """State the 95 % intervals of the three unbiased means, and the paired test of their difference."""
    means = _means(results, "unbiased")
    digits = digits_for(*(mean.se for mean in means))
    natural, inverted, difference = (_interval(mean, digits) for mean in means)
    return (
        f"95 % intervals: natural {natural}, inverted {inverted}, difference {difference}, p {probability(means[2])} "
        f"(paired; t with {results.df} degrees of freedom, jackknife over shards of images)"
    )


def network_intervals(results: Results) -> str:
    """State the 95 % intervals over other networks and images at once; "" for fewer than three networks or groups."""
    totals = [results.inference.means[name].total for name in ("natural", "inverted", "difference")]
    if not all(np.isfinite(total.se) for total in totals):
        return ""
    digits = digits_for(*(total.se for total in totals))
    natural, inverted, difference = (_interval(total, digits) for total in totals)
    units = "architectures" if results.inference.replicated else "networks"
    return (
        f"95 % intervals over other {units} and images: natural {natural}, inverted {inverted}, difference "
        f"{difference} (t with {totals[0].df} degrees of freedom, jackknife over {units} and over shards)"
    )


def ceiling_line(results: Results) -> str:
    """State the similarity of networks that only a training seed tells apart, and the share of it; "" without any."""
    inference = results.inference
    if not inference.replicated:
        return ""
    natural, inverted = (crossed(inference.ceiling[name]) for name in SETS)
    shares = [crossed(inference.normalized[name]) for name in SETS]
    return (
        f"Ceiling, two training seeds of one architecture: natural {natural}, inverted {inverted}; similarity between "
        f"architectures is {shares[0]} and {shares[1]} of it"
    )


def variance_line(results: Results) -> str:
    """State what other architectures, training seeds and images would change; "" unless all are replicated."""
    parts = results.inference.parts["inverted"]
    if not np.isfinite(parts.seeds):
        return ""
    return (
        f"Standard error of the inverted mean: {number(parts.architectures)} from architectures, {number(parts.seeds)} "
        f"from training seeds, {number(parts.images)} from images; one cell varies over training seeds with a standard "
        f"deviation of {number(parts.cell_sd)}"
    )


def asymmetry_line(results: Results) -> str:
    """State how many mirrored cells of the inverted matrix differ, and the largest differences; "" for one network."""
    asymmetry = results.inference.asymmetry
    tested = [p for p in asymmetry.pair_p.values() if np.isfinite(p)]
    if not tested:
        return ""
    different = sum(p < 0.05 for p in tested)
    largest = _listed(_excess(results, *pair) for pair in asymmetry.largest(SHOWN_PAIRS))
    return (
        f"Asymmetry of the inverted matrix: {different:,} of {len(tested):,} pairs differ (p < 0.05, Holm, over "
        f"images); most above the mirrored cell: {largest}"
    )


def _excess(results: Results, i: int, j: int) -> str:
    """Format how far a cell is above the mirrored one."""
    asymmetry, names = results.inference.asymmetry, results.networks
    p = probability_of(asymmetry.adjusted(i, j))
    return f"through {names[i]} seen by {names[j]} {with_error(asymmetry.difference(i, j))} (p {p})"


def _means(results: Results, estimator: Estimator) -> tuple[Estimate, Estimate, Estimate]:
    """Return the means of natural, inverted, and natural minus inverted."""
    return (
        results.means["natural", estimator],
        results.means["inverted", estimator],
        results.means["difference", estimator],
    )


def _interval(mean: Estimate, digits: int) -> str:
    low, high = mean.interval
    return f"{number(low, digits)} to {number(high, digits)}"


def probability(difference: Estimate) -> str:
    """Format the p-value of a difference: '< 0.001', '= 0.023', or '= –' if undefined."""
    return probability_of(difference.p_value)


def probability_of(p: float) -> str:
    """Format a p-value: '< 0.001', '= 0.023', or '= –' if undefined."""
    return "< 0.001" if p < 0.001 else f"= {number(p)}"


def _three_means(natural: Estimate, inverted: Estimate, difference: Estimate) -> str:
    digits = digits_for(natural.se, inverted.se, difference.se)
    return (
        f"Natural similarity {with_error(natural, digits)}; after inversion {with_error(inverted, digits)}; "
        f"difference {with_error(difference, digits)}"
    )


def _basis(results: Results) -> str:
    return f"mean of {results.counted.sum():,} cells, n = {results.n:,} images in {results.shards:,} shards"


def warnings(results: Results) -> list[str]:
    """List every reason not to trust the numbers, one or two sentences each; empty if there is none.

    The reasons: networks with equal weights, another preset than the published one, unreadable images, what stages
    noted (doubles, another order of classes), networks that did not converge, stalled images or losses that are not
    finite, accuracy near chance, images of another size, and undefined values.
    """
    return [
        *map(equal_weights, results.twins),
        *_other_steps(results),
        *_skipped(results),
        *results.notes,
        *_unconverged(results),
        *_troubled_images(results),
        *_guessing(results),
        *_of_other_sizes(results),
        *_undefined(results),
    ]


def equal_weights(group: Sequence[str]) -> str:
    """Warn of networks that are the same network under several names."""
    every, all_but_one = ("both", "one") if len(group) == 2 else ("all", "all but one")
    return (
        f"Equal weights: {_listed(group)} are {every} the same network. Their similarity to each other is left out of "
        f"means, differences and summaries; remove {all_but_one}, or give each its own weights."
    )


def _other_steps(results: Results) -> Iterable[str]:
    if results.preset != "published":
        yield (
            f"Inverted with the preset {results.preset} instead of the published steps, which changes CKA by some "
            f"hundredths either way (docs/benchmarks.md). Compare only with runs of the same preset."
        )


def all_well(results: Results) -> str:
    """State that all checks passed, for results without `warnings`."""
    unknown = [name for name in results.everyone if not np.isfinite(results.summaries[name].accuracy)]
    converged = f"All networks converged (median final relative loss at most {results.tolerance:g})"
    if not unknown:
        return f"{converged} and are clearly better than chance; no image stalled; all values are defined."
    trained = "it was" if len(unknown) == 1 else "they were"
    return (
        f"{converged}; no image stalled; all values are defined. "
        f"Accuracy of {_listed(unknown)} is not reported: {trained} trained on other classes."
    )


def _skipped(results: Results) -> Iterable[str]:
    for split, (unreadable, listed) in results.skipped.items():
        if unreadable:
            yield f"{unreadable:,} of {listed:,} {split} images were unreadable and skipped (see netsim status)."


def _unconverged(results: Results) -> Iterable[str]:
    unconverged = [name for name in results.networks if not results.converged[name]]
    if unconverged:
        losses = _listed(f"{name} ({number(results.loss[name].median)})" for name in unconverged)
        it, its_row = ("it", "its row") if len(unconverged) == 1 else ("them", "their rows")
        yield (
            f"Not converged: {losses}. The median final relative loss is above the tolerance of "
            f"{results.tolerance:g}: inversion through {it} did not reach the targets, and {its_row} of the inverted "
            f"matrix cannot be trusted. Increase inversion.iterations."
        )


def _troubled_images(results: Results) -> Iterable[str]:
    counts = {name: (results.loss[name].stalled, results.loss[name].nonfinite) for name in results.networks}
    stalled = [name for name, (count, _) in counts.items() if count]
    nonfinite = [name for name, (_, count) in counts.items() if count]
    if stalled:
        images = _listed(f"{name} ({counts[name][0]:,} of {results.n:,})" for name in stalled)
        yield f"Stalled images (zero gradient at some iteration): {images}."
    if nonfinite:
        images = _listed(f"{name} ({counts[name][1]:,} of {results.n:,})" for name in nonfinite)
        yield f"Images with a loss that was not finite at some iteration: {images}."


def _guessing(results: Results) -> Iterable[str]:
    guessing = [
        name
        for name in results.everyone
        if np.isfinite(results.summaries[name].accuracy)  # NaN for a network trained on other classes
        and not better_than_chance(results.summaries[name].accuracy, results.chance)
    ]
    if guessing:
        accuracies = _listed(f"{name} ({percent(results.summaries[name].accuracy)})" for name in guessing)
        yield (
            f"Not clearly better than chance ({percent(results.chance)}) on the test images: {accuracies}. "
            f"A network that learned little says little about what trained networks share."
        )


def _of_other_sizes(results: Results) -> Iterable[str]:
    sizes = {name: results.summaries[name].other_size for name in results.everyone}
    named = [f"{name} ({size} pixels a side)" for name, size in sizes.items() if size is not None]
    if named:
        yield (
            f"Made for images of another size: {_listed(named)}. Their published accuracy, for example, may not hold "
            f"at this size (images.size)."
        )


def _undefined(results: Results) -> Iterable[str]:
    for name in SETS:
        for estimator in ESTIMATORS:
            values = results.cells(name, estimator)
            count = int((~np.isfinite(values)).sum())
            if count:
                undefined = results.cells(name, estimator, kind="undefined").ravel()
                reasons = dict.fromkeys(str(reason) for reason in undefined if reason)
                yield (
                    f"Undefined: {count:,} of {values.size:,} {estimator} values of the {name} matrix, shown as “–”"
                    f" ({'; '.join(list(reasons)[:3])})."
                )


def better_than_chance(accuracy: float, chance: float) -> bool:
    """Return True if accuracy is at least min(2 chance, chance + 0.1 (1 - chance)); False for NaN.

    Twice chance alone would be impossible with two classes; a tenth of the way from chance to 1 alone would require
    10 % accuracy with a thousand classes.
    """
    return bool(accuracy >= min(2 * chance, chance + 0.1 * (1 - chance)))


def _listed(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last


def percent(fraction: float) -> str:
    """Format a fraction as '89.3 %', below 1 % as '0.10 %' (chance with a thousand classes), and NaN as 'unknown'."""
    if not np.isfinite(fraction):
        return "unknown"
    return f"{100 * fraction:.{2 if fraction < 0.01 else 1}f} %"


def floor_mean(results: Results, set_name: str) -> float:
    """Average the floor of a matrix over the cells that count: the biased mean of unrelated representations."""
    return float(counted_mean(results.floor(set_name)[:, : len(results.networks)], results.counted))


# ---- tables: a list of rows, each a mapping from column to text -----------------------------------------------------


def matrix_table(results: Results, set_name: str) -> list[dict[str, str]]:
    """Format unbiased CKA of every cell with its 95 % interval; row = through, column = observer."""
    values, low, high = (results.cells(set_name, kind=kind) for kind in ("cka", "low", "high"))

    def cell(index: tuple[int, int]) -> str:
        return f"{number(values[index])} [{number(low[index])}, {number(high[index])}]"

    return [
        {"through": name} | {observer: cell((row, column)) for column, observer in enumerate(results.everyone)}
        for row, name in enumerate(results.networks)
    ]


def network_table(results: Results) -> list[dict[str, str]]:
    """Format losses, accuracy and convergence, one row per network."""
    return [
        {
            "network": name,
            "test accuracy": percent(results.summaries[name].accuracy),
            "initial loss": number(float(np.median(loss.initial))),
            "final loss": number(loss.median),
            "tolerance": f"{results.tolerance:g}",
            "converged": "yes" if results.converged[name] else "NO",
            "distance": number(float(np.median(loss.distance)), 2),
            "iterations": f"{loss.iterations.mean():,.0f}",
        }
        for name in results.networks
        for loss in (results.loss[name],)
    ]


# ---- numbers as text ---------------------------------------------------------------------------------------------


def number(value: float, digits: int = 3) -> str:
    """Format `value` with a true minus sign (U+2212), never "−0.00"; an en dash if it is not finite."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def digits_for(*errors: float) -> int:
    """Return the decimals, 2 to 4, that show the first digit of the smallest of `errors`."""
    known = [error for error in errors if np.isfinite(error) and error > 0]
    return int(np.clip(np.ceil(-np.log10(min(known))), 2, 4)) if known else 3


def with_error(mean: Estimate, digits: int | None = None) -> str:
    """Format a value and one standard error: '0.874 ± 0.006'."""
    digits = digits_for(mean.se) if digits is None else digits
    return f"{number(mean.value, digits)} ± {number(mean.se, digits)}"


def with_errors(mean: Estimate, networks: Estimate, digits: int | None = None) -> str:
    """Format a value and both standard errors: '0.226 ± 0.015 (images) ± 0.075 (networks)'; without undefined ones."""
    digits = digits_for(mean.se, networks.se) if digits is None else digits
    over = f" ± {number(networks.se, digits)} (networks)" if np.isfinite(networks.se) else ""
    return f"{with_error(mean, digits)} (images){over}"


def crossed(estimate: CrossedEstimate, digits: int | None = None) -> str:
    """Format a value with both standard errors."""
    return with_errors(estimate.images, estimate.networks, digits)
