"""What a run found, in words: the same sentences and the same doubts in the terminal, the Prefect UI and the report."""

from collections.abc import Iterable, Sequence

import numpy as np

from netsim.results.matrices import ESTIMATORS, SETS, off_diagonal
from netsim.results.results import Results
from netsim.similarity.hsic import Estimator
from netsim.similarity.uncertainty import Estimate


def headline(results: Results) -> str:
    """The finding in one sentence, unbiased; an en dash stands for a mean that is undefined."""
    return f"{_three_means(*_means(results, 'unbiased'))} (unbiased CKA, {_basis(results)})"


def biased_headline(results: Results) -> str:
    """The same sentence for the biased estimator, with the floor its inverted mean has to be held against."""
    means = _three_means(*_means(results, "biased"))
    floors = f"{number(floor_mean(results, 'natural'), 2)} and {number(floor_mean(results, 'inverted'), 2)}"
    return f"{means} (biased CKA; independent representations would give {floors} on natural and inverted images)"


def intervals(results: Results) -> str:
    """The 95 % intervals of the headline's three means, and whether inverted differs from natural."""
    means = _means(results, "unbiased")
    digits = digits_for(*(mean.se for mean in means))
    natural, inverted, difference = (_interval(mean, digits) for mean in means)
    return (
        f"95 % intervals: natural {natural}, inverted {inverted}, difference {difference}, p {probability(means[2])} "
        f"(paired; t with {results.df} degrees of freedom, from leaving out each shard of images)"
    )


def _means(results: Results, estimator: Estimator) -> tuple[Estimate, Estimate, Estimate]:
    """Natural, inverted, and natural minus inverted."""
    return (
        results.means["natural", estimator],
        results.means["inverted", estimator],
        results.means["difference", estimator],
    )


def _interval(mean: Estimate, digits: int) -> str:
    low, high = mean.interval
    return f"{number(low, digits)} to {number(high, digits)}"


def probability(difference: Estimate) -> str:
    """'< 0.001', '= 0.023', or '= –' where it is undefined."""
    p = difference.p_value
    return "< 0.001" if p < 0.001 else f"= {number(p)}"


def _three_means(natural: Estimate, inverted: Estimate, difference: Estimate) -> str:
    digits = digits_for(natural.se, inverted.se, difference.se)
    return (
        f"Natural similarity {with_error(natural, digits)}; after inversion {with_error(inverted, digits)}; "
        f"difference {with_error(difference, digits)}"
    )


def _basis(results: Results) -> str:
    cells = len(results.networks) * (len(results.networks) - 1)
    return f"mean of {cells:,} cells, n = {results.n:,} images in {results.shards:,} shards"


def warnings(results: Results) -> list[str]:
    """What keeps the numbers from being trusted, one sentence each; empty when nothing does."""
    return [
        *_other_steps(results),
        *_skipped(results),
        *_unconverged(results),
        *_troubled_images(results),
        *_guessing(results),
        *_of_other_sizes(results),
        *_undefined(results),
    ]


def _other_steps(results: Results) -> Iterable[str]:
    if results.preset != "published":
        yield (
            f"Inverted with the preset {results.preset}, whose images are not those of the published steps. CKA on "
            f"them differs by some hundredths either way (docs/benchmarks.md): compare runs of the same preset only."
        )


def all_well(results: Results) -> str:
    """What can be said where there are no warnings."""
    unknown = [name for name in results.networks if not np.isfinite(results.summaries[name].accuracy)]
    said = f"Every network converged (median final relative loss at most {results.tolerance:g})"
    if not unknown:
        return f"{said} and is clearly better than chance; no image stalled; every value is defined."
    verb = "is" if len(unknown) == 1 else "are"
    return (
        f"{said}; no image stalled; every value is defined. How good {_listed(unknown)} {verb} on these images is not "
        "known: other classes are told apart there."
    )


def _skipped(results: Results) -> Iterable[str]:
    for split, (unreadable, listed) in results.skipped.items():
        if unreadable:
            yield f"{unreadable:,} of {listed:,} {split} images could not be read and were left out (netsim status)."


def _unconverged(results: Results) -> Iterable[str]:
    late = [name for name in results.networks if not results.converged[name]]
    if late:
        losses = _listed(f"{name} ({number(results.loss[name].median)})" for name in late)
        yield (
            f"Not converged: {losses}. The median final relative loss is above the tolerance of "
            f"{results.tolerance:g}, so inversion through {_it(late)} has not reached the targets and "
            f"{_its(late)} of the inverted matrix cannot be trusted. Use more iterations."
        )


def _troubled_images(results: Results) -> Iterable[str]:
    counts = {name: (results.loss[name].stalled, results.loss[name].nonfinite) for name in results.networks}
    stalled = [name for name, (count, _) in counts.items() if count]
    nonfinite = [name for name, (_, count) in counts.items() if count]
    if stalled:
        images = _listed(f"{name} ({counts[name][0]:,} of {results.n:,})" for name in stalled)
        yield f"Stalled images, whose gradient was zero at some iteration: {images}."
    if nonfinite:
        images = _listed(f"{name} ({counts[name][1]:,} of {results.n:,})" for name in nonfinite)
        yield f"Images whose loss was not finite at some iteration: {images}."


def _guessing(results: Results) -> Iterable[str]:
    guessing = [
        name
        for name in results.networks
        if np.isfinite(results.summaries[name].accuracy)  # unknown, where a network tells other classes apart
        and not better_than_chance(results.summaries[name].accuracy, results.chance)
    ]
    if guessing:
        accuracies = _listed(f"{name} ({percent(results.summaries[name].accuracy)})" for name in guessing)
        yield (
            f"Not clearly better than chance ({percent(results.chance)}) on the test images: {accuracies}. "
            f"A network that has learnt little is no evidence of what trained networks share."
        )


def _of_other_sizes(results: Results) -> Iterable[str]:
    sizes = {name: results.summaries[name].other_size for name in results.networks}
    named = [f"{name} ({size} pixels a side)" for name, size in sizes.items() if size is not None]
    if named:
        yield (
            f"Made for images of another size than these: {_listed(named)}. What is known of such networks, their "
            f"accuracy for one, may not hold here (images.size)."
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
    """At least twice chance, or a tenth of the way from chance to perfect, whichever is less; False for NaN.

    Twice alone would ask the impossible of two classes; a tenth alone, 10 % accuracy over a thousand classes.
    """
    return bool(accuracy >= min(2 * chance, chance + 0.1 * (1 - chance)))


def _listed(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _its(names: Sequence[str]) -> str:
    return "its row" if len(names) == 1 else "their rows"


def percent(fraction: float) -> str:
    """'89.3 %', or '0.10 %' where one decimal would hide what a thousand classes are about."""
    if not np.isfinite(fraction):
        return "unknown"
    return f"{100 * fraction:.{2 if fraction < 0.01 else 1}f} %"


def floor_mean(results: Results, set_name: str) -> float:
    """What the biased mean would be if all representations were independent; NaN where any cell's floor is."""
    floors = off_diagonal(results.floor(set_name))
    return float(floors.mean()) if floors.size else float("nan")


# ---- tables, each a list of rows by column, as words ---------------------------------------------------------------


def matrix_table(results: Results, set_name: str) -> list[dict[str, str]]:
    """Unbiased CKA of every cell with its 95 % interval; row = through, column = observer."""
    values, low, high = (results.cells(set_name, kind=kind) for kind in ("cka", "low", "high"))

    def cell(at: tuple[int, int]) -> str:
        return f"{number(values[at])} [{number(low[at])}, {number(high[at])}]"

    return [
        {"through": name} | {observer: cell((row, column)) for column, observer in enumerate(results.networks)}
        for row, name in enumerate(results.networks)
    ]


NETWORK_TABLE = "Networks and their inversions: medians of relative loss, and of L2 distance from the seed"
"""What `network_table` has, for whoever shows it."""


def network_table(results: Results) -> list[dict[str, str]]:
    """A row a network, numbers in words."""
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


# ---- numbers in words -------------------------------------------------------------------------------------------


def number(value: float, digits: int = 3) -> str:
    """`value` with a real minus sign, never "-0.00"; an en dash where it is not finite."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def digits_for(*errors: float) -> int:
    """Decimals that show the first digit of the smallest of `errors`: 2 to 4."""
    known = [error for error in errors if np.isfinite(error) and error > 0]
    return int(np.clip(np.ceil(-np.log10(min(known))), 2, 4)) if known else 3


def with_error(mean: Estimate, digits: int | None = None) -> str:
    """'0.874 ± 0.006': a value and one standard error."""
    digits = digits_for(mean.se) if digits is None else digits
    return f"{number(mean.value, digits)} ± {number(mean.se, digits)}"
