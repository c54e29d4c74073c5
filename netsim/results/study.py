"""Similarity as a function of robustness: all that `netsim study` shows. M = networks, K = levels of eps, G = shards.

A study is a view of a finished run whose networks were trained at two levels of eps or more, such as standard ones
(eps 0) and robust ones. It computes nothing that the store does not have. The architecture of a network is that of its
reference; its eps is that of its adversarial training, or that in the name of a published robust network.

Sources: Jones et al. 2022, https://proceedings.mlr.press/v180/jones22a.html, whose claim is that similarity to all
other networks rises with robustness; Klabunde et al. 2025, arXiv:2510.19427, who find it in some settings only, and
that predictions do not converge unless classifiers are retrained.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from netsim.errors import SettingsError
from netsim.references import network_name
from netsim.results.findings import digits_for, number, percent, probability_of, with_errors
from netsim.results.matrices import ESTIMATORS, SETS
from netsim.results.measured import Measured, MeasuredMatrix
from netsim.results.results import MAX_ABOVE, NetworkSummary, Results
from netsim.similarity.uncertainty import plain
from netsim.statistics.networks import CrossedEstimate
from netsim.statistics.slopes import FEWEST, ByEps, similarity_by_eps

FLOOR, ROBUST_FLOOR = 0.85, 0.0
"""Default test accuracy below which a standard and a robust network are left out."""

MEASURES = ("agreement", "jensen_shannon", "retrained_agreement")
"""Measures of predictions that a study shows beside CKA, if `netsim measure` has computed them."""

QUANTITIES = {
    "cka": "unbiased CKA",
    "on_converged": "unbiased CKA, converged images only",
    "seed_only": "seed-only control",
}
"""Quantities of every study, and their titles."""

Values = tuple[np.ndarray, np.ndarray]
"""Cells (M, M), and without each shard (M, M, G)."""

_PUBLISHED = re.compile(r"(?P<name>.+)_(?P<norm>l2|linf)_eps(?P<eps>[\d.]+)")

BELOW, UNCONVERGED = "†", "*"
"""Marks of values that lack a network below its floor, and that have one whose inversion did not converge."""


@dataclass(frozen=True)
class StudyNetwork:
    """One network of a study.

    Attributes
    ----------
    architecture : str
        Name of its architecture.
    eps, norm : float, str
        Distance and norm that it was trained to withstand; 0 and "" for a standard network.
    accuracy, robust : float, float or None
        Test accuracy, NaN if unknown, and accuracy under attack, None if it was not measured.
    floor : float
        Accuracy that it must have to be counted.
    above : float
        Share of its images whose final loss is above the tolerance.
    """

    name: str
    architecture: str
    eps: float
    norm: str
    accuracy: float
    robust: float | None
    floor: float
    above: float

    @property
    def below_floor(self) -> bool:
        """True if its accuracy is known and below its floor, so that no mean or slope has it."""
        return self.accuracy < self.floor

    @property
    def converged(self) -> bool:
        """True if at most `MAX_ABOVE` of its images are above the tolerance, as `Results.converged` decides."""
        return self.above <= MAX_ABOVE


@dataclass(frozen=True)
class Study:
    """Similarity of networks of different architectures, by the eps that they were trained with.

    Attributes
    ----------
    networks : tuple of StudyNetwork
        All networks of rows, those below their floor too.
    norm : str
        Norm of eps; "" if no robust network states one.
    titles : dict of str
        Quantity -> title: those of `QUANTITIES`, and measures.
    curves : dict of ByEps
        (quantity, set) -> means and slopes. "cka" and "seed_only" have both sets, "on_converged" the inverted one.
    not_measured : tuple of str
        Those of `MEASURES` that the run does not have.
    """

    networks: tuple[StudyNetwork, ...]
    norm: str
    titles: Mapping[str, str]
    curves: Mapping[tuple[str, str], ByEps]
    not_measured: tuple[str, ...]

    @property
    def eps(self) -> tuple[float, ...]:
        """The K levels of the networks that count."""
        return self.curves["cka", "inverted"].eps

    @property
    def architectures(self) -> tuple[str, ...]:
        """The architectures of the networks that count."""
        return self.curves["cka", "inverted"].architectures

    def marks(self, eps: Sequence[float], architecture: str | None = None, *, inverted: bool) -> str:
        """Return the marks of a value of networks of some levels, and of one architecture or of all."""
        among = [each for each in self.networks if each.eps in eps and architecture in (None, each.architecture)]
        below = any(each.below_floor for each in among)
        unconverged = inverted and any(not each.converged for each in among if not each.below_floor)
        return (BELOW if below else "") + (UNCONVERGED if unconverged else "")

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values, with None for what is undefined."""
        by_quantity: dict[str, dict[str, Any]] = {name: {"title": title} for name, title in self.titles.items()}
        for (name, set_name), curve in self.curves.items():
            by_quantity[name][set_name] = curve.to_json()
        return {
            "norm": self.norm,
            "eps": list(self.eps),
            "architectures": list(self.architectures),
            "networks": [
                asdict(each)
                | {"accuracy": plain(each.accuracy), "below_floor": each.below_floor, "converged": each.converged}
                for each in self.networks
            ],
            "quantities": by_quantity,
            "not_measured": list(self.not_measured),
        }


def make_study(
    results: Results,
    measured: Mapping[str, Measured] | None = None,
    *,
    floor: float = FLOOR,
    robust_floor: float = ROBUST_FLOOR,
) -> Study:
    """Arrange results by architecture and eps, and compute means, slopes and asymmetry of every quantity.

    Parameters
    ----------
    results
        Results of a finished run.
    measured
        Other measures of the same sweep (`netsim.results.measured.load_measured`); those of `MEASURES` are shown.
    floor, robust_floor
        Test accuracy below which a standard (eps 0) and a robust network are marked and left out.

    Raises
    ------
    SettingsError
        If fewer than two architectures or levels of eps are left, or eps is of several norms.
    """
    networks = _networks(results, floor, robust_floor)
    norm = _require_levels(networks)
    enough = np.array([not each.below_floor for each in networks])
    kept = np.flatnonzero(enough)
    cut = np.ix_(kept, kept)
    labels, eps = [networks[i].architecture for i in kept], [networks[i].eps for i in kept]

    def by_eps(values: Values) -> ByEps:
        cells, replicates = (each[:, : len(networks)][cut] for each in values)
        return similarity_by_eps(cells, replicates, results.distinct[:, : len(networks)][cut], labels, eps)

    chosen = {name: measured[name] for name in MEASURES if measured and name in measured}
    values = _values(results) | {key: _of_measure(matrix) for key, matrix in _matrices(chosen).items()}
    return Study(
        networks=networks,
        norm=norm,
        titles=QUANTITIES | {name: measure.title for name, measure in chosen.items()},
        curves={key: by_eps(each) for key, each in values.items()},
        not_measured=tuple(name for name in MEASURES if name not in chosen),
    )


def has_levels(results: Results) -> bool:
    """Return True if results make a study with the default floors."""
    try:
        _require_levels(_networks(results, FLOOR, ROBUST_FLOOR))
    except SettingsError:
        return False
    return True


def trained_with(summary: NetworkSummary) -> tuple[str, float, str]:
    """Return the architecture, eps and norm of a network, which the name of a published robust network states.

    Examples
    --------
    >>> network = NetworkSummary("a", "robust:resnet18_l2_eps0.25", 0.6, 1, 1, "", trained_here=False)
    >>> trained_with(network)
    ('resnet18', 0.25, 'l2')
    """
    name = network_name(summary.reference)
    published = _PUBLISHED.fullmatch(name)
    if published is None or not summary.reference.startswith("robust:"):
        return name, summary.eps, summary.norm
    eps = float(published["eps"])
    return published["name"], eps, published["norm"] if eps else ""


# ---- parts ------------------------------------------------------------------------------------------------------


def _networks(results: Results, floor: float, robust_floor: float) -> tuple[StudyNetwork, ...]:
    networks = []
    for name in results.networks:
        summary = results.summaries[name]
        architecture, eps, norm = trained_with(summary)
        networks.append(
            StudyNetwork(
                name=name,
                architecture=architecture,
                eps=eps,
                norm=norm,
                accuracy=summary.accuracy,
                robust=summary.robust,
                floor=robust_floor if eps else floor,
                above=results.loss[name].above(results.tolerance),
            )
        )
    return tuple(networks)


def _require_levels(networks: Sequence[StudyNetwork]) -> str:
    """Return the norm of all robust networks. Raises SettingsError unless there is something to compare."""
    norms = list(dict.fromkeys(each.norm for each in networks if each.norm))
    if len(norms) > 1:
        raise SettingsError(f"eps must be of one norm, got {' and '.join(norms)}. Choose networks with --networks.")
    below = [f"{each.name} ({percent(each.accuracy)})" for each in networks if each.below_floor]
    hint = (
        f" {len(below)} are below their accuracy floor, such as {below[0]}: lower --floor or --robust-floor."
        if below
        else ""
    )
    kept = [each for each in networks if not each.below_floor]
    levels, architectures = {f"eps {each.eps:g}" for each in kept}, {each.architecture for each in kept}
    if len(levels) < FEWEST:
        raise SettingsError(
            f"a study must have networks of {FEWEST} levels of eps or more, got {_listed(levels)}.{hint} "
            "Add robust networks: training.adversarial, docs/howto/networks.md."
        )
    if len(architectures) < FEWEST:
        raise SettingsError(
            f"a study must have networks of {FEWEST} architectures or more, got {_listed(architectures)}.{hint} "
            "Add others with `netsim add`."
        )
    return norms[0] if norms else ""


def _listed(names: set[str]) -> str:
    return f"{len(names)} ({', '.join(sorted(names))})" if names else "none"


def _values(results: Results) -> dict[tuple[str, str], Values]:
    """Select the cells of each quantity, with C columns."""
    e = ESTIMATORS.index("unbiased")
    controls = results.controls
    values = {("cka", name): (results.matrices[name].cka[e], results.matrices[name].leave_one_out[e]) for name in SETS}
    if results.on_converged is not None:
        cells, *replicates = results.on_converged
        values["on_converged", "inverted"] = cells, np.stack(replicates, axis=-1)
    return values | {
        ("seed_only", name): (controls.values[f"{name}_seed"], controls.leave_one_out[f"{name}_seed"]) for name in SETS
    }


def _matrices(measured: Mapping[str, Measured]) -> dict[tuple[str, str], MeasuredMatrix]:
    both = {(name, kind): getattr(measure, kind) for name, measure in measured.items() for kind in SETS}
    return {key: matrix for key, matrix in both.items() if matrix is not None}


def _of_measure(matrix: MeasuredMatrix) -> Values:
    return matrix.value, matrix.replicates


# ---- sentences and tables ---------------------------------------------------------------------------------------


def study_headline(study: Study) -> str:
    """State the slopes of both matrices, with both errors."""
    inverted, natural = (_signed(study.curves["cka", name].slope) for name in ("inverted", "natural"))
    unit = f"eps ({study.norm})" if study.norm else "eps"
    return (
        f"For each unit of {unit}, similarity of {len(study.architectures)} architectures to each other changes by "
        f"{inverted} on inverted and by {natural} on natural images (unbiased CKA, {len(study.eps)} levels of eps from "
        f"{study.eps[0]:g} to {study.eps[-1]:g})"
    )


def study_asymmetry(study: Study) -> str:
    """State the overlap of robust and standard networks in both directions."""
    curve = study.curves["cka", "inverted"]
    difference = curve.asymmetry
    return (
        f"Inverted through robust networks and seen by those of eps {study.eps[0]:g}, minus the mirrored cells: "
        f"{_signed(difference)}, 95 % interval {_interval(difference)}, p {probability_of(difference.total.p_value)}"
    )


def study_warnings(study: Study) -> list[str]:
    """List what is marked, what is missing, and what has no error."""
    warnings = []
    below = [f"{each.name} ({percent(each.accuracy)})" for each in study.networks if each.below_floor]
    if below:
        warnings.append(
            f"Below the accuracy floor, and left out of all means and slopes ({BELOW}): {', '.join(below)}."
        )
    unconverged = [f"{each.name} ({percent(each.above)})" for each in study.networks if not each.converged]
    if unconverged:
        warnings.append(
            f"Not converged ({UNCONVERGED}; share of images above the tolerance): {', '.join(unconverged)}. Compare "
            "with the values of converged images only, and increase inversion.iterations."
        )
    if len(study.architectures) < FEWEST + 1:
        warnings.append("Two architectures have no error over networks: add others.")
    if study.not_measured:
        warnings.append(
            f"Not measured: {', '.join(study.not_measured)}. Run `netsim measure STORE {' '.join(study.not_measured)}`."
        )
    return warnings


def level_table(study: Study) -> list[dict[str, str]]:
    """Tabulate the means of every quantity by level, over pairs of architectures, and its slope."""
    rows = []
    for (name, set_name), curve in study.curves.items():
        cells = {
            f"eps {level:g}": _short(each) + study.marks([level], inverted=set_name == "inverted")
            for level, each in zip(curve.eps, curve.same, strict=True)
        }
        rows.append({"": study.titles[name], "images": set_name} | cells | _slope_cells(curve.slope))
    return rows


def architecture_table(study: Study, key: tuple[str, str] = ("cka", "inverted")) -> list[dict[str, str]]:
    """Tabulate the row means of each architecture by level, over other architectures at the same level."""
    curve, inverted = study.curves[key], key[1] == "inverted"
    return [
        {"architecture": name}
        | {
            f"eps {level:g}": _short(each) + study.marks([level], name, inverted=inverted)
            for level, each in zip(curve.eps, means, strict=True)
        }
        | _slope_cells(curve.slopes[name])
        for name, means in curve.rows.items()
    ]


def cross_table(study: Study, key: tuple[str, str] = ("cka", "inverted")) -> list[dict[str, str]]:
    """Tabulate means by the level of the network inverted through (row) and of the observer (column)."""
    curve = study.curves[key]
    return [
        {"through ↓ observer →": f"eps {level:g}"}
        | {
            f"eps {other:g}": _short(each) + study.marks([level, other], inverted=key[1] == "inverted")
            for other, each in zip(curve.eps, row, strict=True)
        }
        for level, row in zip(curve.eps, curve.cross, strict=True)
    ]


def asymmetry_table(study: Study) -> list[dict[str, str]]:
    """Tabulate (robust, standard) minus (standard, robust) of the inverted matrix, by level and over all."""
    curve = study.curves["cka", "inverted"]
    levels = {f"eps {level:g}": each for level, each in zip(curve.eps[1:], curve.asymmetries, strict=True)}
    every = {"all": curve.asymmetry} if len(levels) > 1 else {}
    return [
        {
            "robust": name,
            "difference": _short(each),
            "95 % interval": _interval(each),
            "p": probability_of(each.total.p_value),
        }
        for name, each in (levels | every).items()
    ]


def study_network_table(study: Study) -> list[dict[str, str]]:
    """Tabulate the networks with their accuracies, their convergence and their marks."""
    return [
        {
            "network": each.name,
            "architecture": each.architecture,
            "eps": f"{each.eps:g}",
            "test accuracy": percent(each.accuracy),
            "floor": percent(each.floor) if each.floor else "none",
            "under attack": "" if each.robust is None else percent(each.robust),
            "above tolerance": percent(each.above),
            "converged": "yes" if each.converged else f"NO {UNCONVERGED}",
            "counted": f"NO {BELOW}" if each.below_floor else "yes",
        }
        for each in study.networks
    ]


def _slope_cells(slope: CrossedEstimate) -> dict[str, str]:
    return {
        "slope per eps": _short(slope),
        "95 % interval": _interval(slope),
        "p": probability_of(slope.total.p_value),
    }


def _short(estimate: CrossedEstimate) -> str:
    """Format a value with its error over images, then over networks, without an undefined one."""
    errors = [each.se for each in (estimate.images, estimate.networks) if np.isfinite(each.se)]
    digits = digits_for(*errors)
    return " ± ".join(number(each, digits) for each in (estimate.value, *errors))


def _signed(estimate: CrossedEstimate) -> str:
    return f"{'+' if estimate.value > 0 else ''}{with_errors(estimate.images, estimate.networks)}"


def _interval(estimate: CrossedEstimate) -> str:
    """Format the interval over networks and images; an en dash for each end that is undefined."""
    low, high = estimate.total.interval
    digits = digits_for(estimate.total.se)
    return f"{number(low, digits)} to {number(high, digits)}"
