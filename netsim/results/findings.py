"""The results of a run in sentences and small tables, shared by the terminal, the Prefect UI and the report."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from netsim.results.controls import LEAK
from netsim.results.inference import MEANS
from netsim.results.matrices import ESTIMATORS, SETS
from netsim.results.measured import Measured
from netsim.results.results import MAX_ABOVE, QUANTILE, NetworkSummary, Results
from netsim.results.stopping import Verdict
from netsim.results.twins import counted_mean
from netsim.similarity.hsic import Estimator
from netsim.similarity.influence import MUCH
from netsim.similarity.uncertainty import Estimate, few_shards
from netsim.statistics.networks import CrossedEstimate

SHOWN_PAIRS = 3
"""Pairs of networks that `asymmetry_line` lists; JSON, CSV and the report have all."""

WARNING = "WARNING"
"""Beginning of a line of `summary` that is a reason not to trust the numbers."""

MEASURED_TABLE = "means off the diagonal ± one standard error; null = images of one side permuted; – = undefined"
"""Title of `measured_table`."""

NETWORK_TABLE = (
    "Networks and their inversions: relative loss, its median at first, halfway and at last, and that of "
    f"{QUANTILE:.0%} of the images; variance of targets that is not reached; fidelity, CKA with their own view of "
    "the targets"
)
"""Title of `network_table`."""

VISIBLE = 0.0005
"""Excess of an interval beyond 0 or 1 that shows in a table of three decimals."""


def sentences(results: Results) -> list[str]:
    """List what a run says, without its warnings: means with their errors, variances, asymmetry, controls, notes."""
    lines = (headline, biased_headline, intervals, network_intervals, ceiling_line, variance_line, asymmetry_line)
    stated = [*verdict_lines(results), *(line(results) for line in lines), *controlled(results), accuracy_line(results)]
    return [f"{sentence}." for sentence in stated if sentence]


def summary(results: Results) -> str:
    """Join `sentences` and `warnings`, a line each; those of warnings begin with `WARNING`."""
    lines = [*sentences(results), *(f"{WARNING}  {warning}" for warning in warnings(results))]
    return "".join(f"{line}\n" for line in lines)


def headline(results: Results) -> str:
    """Summarize the unbiased means in one sentence, with both errors; an undefined mean is an en dash."""
    means, digits = _means(results, "unbiased"), mean_digits(results, "unbiased")
    over = [results.inference.means[name].networks for name in MEANS]
    natural, inverted, difference = (
        with_errors(mean, networks, digits) for mean, networks in zip(means, over, strict=True)
    )
    return (
        f"Natural similarity {natural}; after inversion {inverted}; difference {difference} "
        f"(unbiased CKA, {_basis(results)})"
    )


def biased_headline(results: Results) -> str:
    """Summarize the biased means in one sentence, with the floors to compare them with."""
    means = _three_means(results, "biased")
    if results.seed_only > LEAK:
        return f"{means} (biased CKA; with {results.classes} classes, seeds and targets are not independent)"
    floors = f"{number(floor_mean(results, 'natural'), 2)} and {number(floor_mean(results, 'inverted'), 2)}"
    return f"{means} (biased CKA; independent representations would give {floors} on natural and inverted images)"


def intervals(results: Results) -> str:
    """State the 95 % intervals of the three unbiased means, and the paired test of their difference."""
    means = _means(results, "unbiased")
    natural, inverted, difference = (interval_text(mean, mean_digits(results, "unbiased")) for mean in means)
    return (
        f"95 % intervals: natural {natural}, inverted {inverted}, difference {difference}, p {probability(means[2])} "
        f"(paired; t with {results.df} degrees of freedom, jackknife over shards of images){_out_of_range(results)}"
    )


def _out_of_range(results: Results) -> str:
    """Count the unbiased intervals with an end that CKA over all images, which is from 0 to 1, cannot have."""
    ends = [np.ravel(results.cells(name, kind=kind)) for name in SETS for kind in ("low", "high")]
    means = [results.means[name, "unbiased"].interval for name in SETS]
    low, high = (np.concatenate([*ends[side::2], [mean[side] for mean in means]]) for side in (0, 1))
    above, below = int((high > 1 + VISIBLE).sum()), int((low < -VISIBLE).sum())
    counts = [
        f"{count:,} {'end' if count == 1 else 'ends'} {where}"
        for count, where in ((above, "above 1"), (below, "below 0"))
        if count
    ]
    if not counts:
        return ""
    return (
        f"; intervals are symmetric and not clipped: of {len(low):,} for cells and means, {' and '.join(counts)}, "
        "where CKA over all images cannot be: read such an end as 1 or 0"
    )


def network_intervals(results: Results) -> str:
    """State the 95 % intervals over other networks and images at once; "" for fewer than three networks or groups."""
    totals = [results.inference.means[name].total for name in MEANS]
    if not all(np.isfinite(total.se) for total in totals):
        return ""
    digits = digits_for(*(total.se for total in totals))
    natural, inverted, difference = (interval_text(total, digits) for total in totals)
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
        f"architectures is {shares[0]} and {shares[1]} on a scale from the seed-only control (0) to it (1)"
    )


def verdict_lines(results: Results) -> list[str]:
    """State what a sweep that stops when its results are known knows of its question; none of any other sweep."""
    if results.verdict is None:
        return []
    others = "All other intervals and p-values take no notice of the looks, and may be too narrow"
    return [verdict_line(results.verdict), others]


def verdict_line(verdict: Verdict) -> str:
    """State the answer at a look: of what, how well it is known, after how many pairs and looks."""
    name = max(verdict.intervals, key=lambda each: np.nan_to_num(np.ptp(verdict.intervals[each]), nan=np.inf))
    estimate, (low, high) = verdict.estimates[name], verdict.intervals[name]
    digits = digits_for(estimate.se)
    used = f"all {verdict.n:,}" if verdict.n == verdict.at_most else f"{verdict.n:,} of at most {verdict.at_most:,}"
    after = f"after {used} pairs, look {verdict.looks}"
    shown = f"{number(low, digits)} to {number(high, digits)}"
    if verdict.until.differ:
        line = f"inverted rows {name} = {number(estimate.value, digits)} {after}; 95 % interval at any look {shown}"
    else:
        always = " to ".join(number(end, digits) for end in verdict.anytime[name])
        subject = "inverted mean" if name == "mean" else f"inverted row {name}"
        subject = f"{subject}, the least known of all rows," if len(verdict.estimates) > 1 else subject
        line = (
            f"{subject} {number(estimate.value, digits)} is known to ± {number(verdict.half_width, 4)} (asked for: ± "
            f"{verdict.until.half_width:g}) {after}; 95 % interval {shown}, and {always} at any look"
        )
    more = "; raise pairs.count to continue" if verdict.final and verdict.outcome == "undecided" else ""
    return f"{_answer(verdict)}: {line}{more}"


def _answer(verdict: Verdict) -> str:
    """Name the outcome of a verdict."""
    if verdict.outcome == "equivalent":
        return f"Equivalent within {verdict.until.delta:g}"
    return verdict.outcome.capitalize() if verdict.final else "Not known yet"


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
    natural, inverted, difference = (results.means[name, estimator] for name in MEANS)
    return natural, inverted, difference


def mean_digits(results: Results, estimator: Estimator) -> int:
    """Return the decimals of the means of an estimator, of their errors over images and of the ends of intervals.

    They show the first digit of the smallest error, and are the same in the page, in captions and in the terminal.
    """
    return digits_for(*(mean.se for mean in _means(results, estimator)))


def mean_text(results: Results, set_name: str, estimator: Estimator) -> str:
    """Format a mean with its error over images, with the digits that it has everywhere."""
    return with_error(results.means[set_name, estimator], mean_digits(results, estimator))


def interval_text(value: Estimate, digits: int = 3) -> str:
    """Format the ends of the 95 % interval of a value."""
    low, high = value.interval
    return f"{number(low, digits)} to {number(high, digits)}"


def probability(difference: Estimate) -> str:
    """Format the p-value of a difference: '< 0.001', '= 0.023', or '= –' if undefined."""
    return probability_of(difference.p_value)


def probability_of(p: float) -> str:
    """Format a p-value: '< 0.001', '= 0.023', or '= –' if undefined."""
    return "< 0.001" if p < 0.001 else f"= {number(p)}"


def _three_means(results: Results, estimator: Estimator) -> str:
    natural, inverted, difference = (mean_text(results, name, estimator) for name in MEANS)
    return f"Natural similarity {natural}; after inversion {inverted}; difference {difference}"


def _basis(results: Results) -> str:
    return f"mean of {results.counted.sum():,} cells, n = {results.n:,} images in {results.shards:,} shards"


def controlled(results: Results) -> list[str]:
    """State what the inverted matrix owes to seeds, what observers see, and what converged images alone give."""
    controls = results.controls
    natural, inverted, adjusted = (controls.mean(key) for key in ("natural_seed", "inverted_seed", "adjusted"))
    see = {role: controls.mean(f"seen_{role}") for role in ("seed", "target")}
    sentences = [
        f"Seed-only control: an observer of nothing but the seeds has {with_error(natural)} with networks that see the "
        f"targets, and {with_error(inverted)} with those that see the inverted images. Without what the class of the "
        f"seed explains, similarity after inversion is {with_error(adjusted)}",
        f"Observers represent an inverted image like its seed ({with_error(see['seed'])}) and like its target "
        f"({with_error(see['target'])})",
    ]
    if np.isfinite(controls.mean("predicts_seed").value):
        seed, target = (percent(controls.mean(f"predicts_{role}").value) for role in ("seed", "target"))
        sentences[-1] += f", and take it for the class of the seed in {seed} and of the target in {target}"
    if results.mean_on_converged is not None:
        share = 1 - float(np.mean([results.loss[name].above(results.tolerance) for name in results.networks]))
        mean = with_error(results.mean_on_converged)
        sentences.append(f"On converged images alone, {percent(share)} of all, similarity after inversion is {mean}")
    return sentences


def warnings(results: Results) -> list[str]:
    """List every reason not to trust the numbers, one or two sentences each; empty if there is none.

    The reasons: networks with equal weights, another preset than the published one, unreadable images, what stages
    noted (doubles, another order of classes), seeds that tell the class of targets, networks that did not converge,
    stalled images or losses that are not finite, accuracy near chance, images of another size, undefined values or
    errors, and few shards.
    """
    return [
        *map(equal_weights, results.twins),
        *_other_steps(results),
        *_skipped(results),
        *results.notes,
        *seeds_tell(results.classes, results.seed_only),
        *_unconverged(results),
        *_troubled_images(results),
        *_guessing(results),
        *_of_other_sizes(results),
        *_undefined(results),
        *_few_shards(results),
    ]


def equal_weights(group: Sequence[str]) -> str:
    """Warn of networks that are the same network under several names."""
    every, all_but_one = ("both", "one") if len(group) == 2 else ("all", "all but one")
    return (
        f"Equal weights: {_listed(group)} are {every} the same network. Their similarity to each other is left out of "
        f"means, differences and summaries; remove {all_but_one}, or give each its own weights."
    )


def influence_warnings(results: Results, measured: Mapping[str, Measured]) -> list[str]:
    """Warn of cells of two networks that a single image carries, if `netsim measure` has computed `cka_influence`."""
    computed = measured.get("cka_influence")
    if computed is None:
        return []
    sentences = []
    for set_name, matrix in (("natural", computed.natural), ("inverted", computed.inverted)):
        if matrix is None:
            continue
        shares = np.where(results.comparable, matrix.value, np.nan)
        carried = shares > MUCH
        if carried.any():
            row, column = np.unravel_index(np.nanargmax(shares), shares.shape)
            sentences.append(
                f"One image carries more than {percent(MUCH)} of all influence on CKA in {carried.sum():,} of "
                f"{np.isfinite(shares).sum():,} cells of the {set_name} matrix, at most {percent(shares[row, column])} "
                f"(through {results.networks[row]}, observer {results.everyone[column]}; "
                f"{percent(matrix.null[row, column])} with one side's images permuted). Look at the image: "
                f"netsim.similarity.influence.image_influence returns the influence of each."
            )
    return sentences


def _other_steps(results: Results) -> Iterable[str]:
    if results.preset != "published":
        yield (
            f"Inverted with the preset {results.preset} instead of the published steps, which changes CKA by some "
            f"hundredths either way (docs/benchmarks.md). Compare only with runs of the same preset."
        )


def all_well(results: Results) -> str:
    """State that all checks passed, for results without `warnings`."""
    few = f"at most {percent(MAX_ABOVE)} of the images above a final relative loss of {results.tolerance:g}"
    converged = f"All networks converged ({few})"
    unknown = accuracy_line(results)
    if not unknown:
        return f"{converged} and are clearly better than chance; no image stalled; all values are defined."
    return f"{converged}; no image stalled; all values are defined. {unknown}."


def accuracy_line(results: Results) -> str:
    """Name the networks whose accuracy is not known, and why; empty if there is none."""
    unknown = [name for name in results.everyone if not np.isfinite(results.summaries[name].accuracy)]
    if not unknown:
        return ""
    classes = f"the {results.classes:,} classes of the images"
    have, outputs = ("has", "its outputs are") if len(unknown) == 1 else ("have", "their outputs are")
    return f"{_listed(unknown)} {have} no accuracy on these images: {outputs} not {classes}"


def _skipped(results: Results) -> Iterable[str]:
    for split, (unreadable, listed) in results.skipped.items():
        if unreadable:
            yield f"{unreadable:,} of {listed:,} {split} images were unreadable and skipped (see netsim status)."


def _unconverged(results: Results) -> Iterable[str]:
    if unconverged := _unconverged_names(results):
        shares = _listed(f"{name} ({percent(results.loss[name].above(results.tolerance))})" for name in unconverged)
        rows = "Its row" if len(unconverged) == 1 else "Their rows"
        yield (
            f"Not converged: {shares} of the images have a final relative loss above the tolerance of "
            f"{results.tolerance:g}. Such images are still partly seeds, on which networks agree or not for reasons of "
            f"their own. {rows} may be too high or too low: compare with the mean over converged images, and increase "
            "inversion.iterations."
        )


def seeds_tell(classes: int, control: float) -> Iterable[str]:
    """Warn where the class of a seed tells much of the class of its target."""
    if control > LEAK:
        yield (
            f"With {classes:,} classes, the label of a seed, which is never the target's, tells much of it: an "
            f"observer that sees nothing but seeds has a similarity of up to {number(control, 2)}. Compare with the "
            "seed-only control and the adjusted values, set pairs.seed_labels to any, and compare with no run of "
            "another number of classes."
        )


def _unconverged_names(results: Results) -> list[str]:
    return [name for name in results.networks if not results.converged[name]]


def unconverged_line(results: Results) -> list[str]:
    """Name the networks that did not converge, in a sentence; none if all did."""
    names = _unconverged_names(results)
    if not names:
        return []
    return [
        f"More than {percent(MAX_ABOVE)} of the images of {_listed(names)} have a final relative loss above "
        f"{results.tolerance:g}"
    ]


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
                yield (
                    f"Undefined: {count:,} of {values.size:,} {estimator} values of the {name} matrix, shown as “–”"
                    f" ({_reasons(results, name, estimator, ~np.isfinite(values))})."
                )
            without_error = np.isfinite(values) & ~np.isfinite(results.cells(name, estimator, kind="se"))
            if without_error.any():
                yield (
                    f"Undefined: the standard errors of {without_error.sum():,} of {values.size:,} {estimator} values "
                    f"of the {name} matrix, and of their means "
                    f"({_reasons(results, name, estimator, without_error)})."
                )


def _reasons(results: Results, set_name: str, estimator: Estimator, cells: np.ndarray) -> str:
    """List at most three different reasons why cells (M, C) are undefined."""
    undefined = results.cells(set_name, estimator, kind="undefined")[cells]
    return "; ".join(list(dict.fromkeys(str(reason) for reason in undefined if reason))[:3])


def _few_shards(results: Results) -> Iterable[str]:
    if few_shards(results.shards):
        yield few_shards(results.shards)


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
    attacked = any(results.summaries[name].robust is not None for name in results.networks)
    return [
        {
            "network": name,
            "test accuracy": percent(results.summaries[name].accuracy),
            **({"under attack": _under_attack(results.summaries[name])} if attacked else {}),
            "initial loss": number(float(np.median(loss.initial))),
            "halfway": number(loss.halfway),
            "final loss": number(loss.median),
            f"{QUANTILE:.0%} below": number(loss.quantile),
            f"above {results.tolerance:g}": percent(loss.above(results.tolerance)),
            "converged": "yes" if results.converged[name] else "NO",
            "not reached": number(results.unreached[name].value),
            "fidelity": number(results.fidelity[name].value),
            "distance": number(float(np.median(loss.distance)), 2),
            "iterations": f"{loss.iterations.mean():,.0f}",
        }
        for name in results.networks
        for loss in (results.loss[name],)
    ]


def measured_table(measured: Mapping[str, Measured]) -> list[dict[str, str]]:
    """Format the means of each measure, with errors and their values for unrelated images, one row per measure."""
    return [
        {
            "measure": measure.title,
            "natural": with_error(measure.natural.mean) if measure.natural else "",
            "natural null": number(measure.natural.null_mean) if measure.natural else "",
            "inverted": with_error(measure.inverted.mean),
            "inverted null": number(measure.inverted.null_mean),
            "natural − inverted": with_error(measure.difference) if measure.difference else "",
            "95 % interval": interval_text(measure.difference) if measure.difference else "",
        }
        for measure in measured.values()
    ]


def _under_attack(summary: NetworkSummary) -> str:
    """Format the accuracy under attack, with norm and distance."""
    return "" if summary.robust is None else f"{percent(summary.robust)} ({summary.norm} {summary.eps:g})"


def verdict_table(verdicts: Iterable[Verdict]) -> list[dict[str, str]]:
    """Format the verdicts of looks, one row per look and thing that is asked about."""
    return [
        {
            "look": f"{verdict.looks:,}",
            "pairs": f"{verdict.n:,}",
            "of": name,
            "value": with_error(estimate),
            "interval": " to ".join(number(end) for end in verdict.intervals[name]),
            "at any look": " to ".join(number(end) for end in verdict.anytime[name]),
            "verdict": _answer(verdict),
        }
        for verdict in verdicts
        for name, estimate in verdict.estimates.items()
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
