"""Comparison of a run with published matrices. M = networks that both have.

Published values were read off a figure, and come from another number of images and perhaps other weights: expect
agreement in rank and in the mean, not in the second digit.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from netsim.errors import RunError, SettingsError, nearest
from netsim.results.results import Results
from netsim.similarity.uncertainty import plain

FEWEST = 3
"""Least number of networks in common: two have a single natural similarity, and one number has no correlation."""


@dataclass(frozen=True)
class PublishedMatrices:
    """Natural and inverted CKA as published, each (M, M); row = through, column = observer.

    Attributes
    ----------
    source
        Citation.
    provenance
        How the values were obtained, and how exact they are.
    """

    name: str
    source: str
    provenance: str
    networks: tuple[str, ...]
    natural: np.ndarray
    inverted: np.ndarray


@dataclass(frozen=True)
class SetComparison:
    """One matrix of a run compared with the published one, over the cells of different weights that are defined.

    Attributes
    ----------
    difference
        This run minus the published value (M, M).
    mean, published_mean
        Means over the cells.
    pearson, spearman
        Correlations over the cells; NaN if either side is constant.
    """

    difference: np.ndarray
    mean: float
    published_mean: float
    pearson: float
    spearman: float


@dataclass(frozen=True)
class Comparison:
    """A run compared with published matrices, by the biased estimator, which the published ones most likely used.

    Attributes
    ----------
    networks
        Networks that both have, in the order of the run.
    """

    published: PublishedMatrices
    networks: tuple[str, ...]
    natural: SetComparison
    inverted: SetComparison


@cache
def published_matrices(name: str) -> PublishedMatrices:
    """Return published matrices that come with netsim, by name: "jones2022".

    Raises
    ------
    SettingsError
        If there are none of this name.
    """
    folder = files("netsim.results")
    known = {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    if name not in known:
        raise SettingsError(
            f"published matrices must be one of {', '.join(sorted(known))}, got {name!r}{nearest(name, known)}"
        )
    values: dict[str, Any] = yaml.safe_load(known[name].read_text(encoding="utf-8"))
    return PublishedMatrices(
        name=name,
        source=values["source"],
        provenance=values["provenance"],
        networks=tuple(values["networks"]),
        natural=np.array(values["natural"]),
        inverted=np.array(values["inverted"]),
    )


def compare(results: Results, published: PublishedMatrices) -> Comparison:
    """Compare a run with published matrices, on the networks that both have.

    Networks are matched by name, except that a run's `small:` networks match none.

    Raises
    ------
    RunError
        If fewer than 3 networks are in both.
    """
    shared = [
        name
        for name in results.networks
        if name in published.networks and not results.summaries[name].reference.startswith("small:")
    ]
    if len(shared) < FEWEST:
        raise RunError(
            f"this run must have at least {FEWEST} of the networks of {published.name} "
            f"({', '.join(published.networks)}), got {len(shared)}. Rename networks by `name=reference`"
        )
    run_cells = np.ix_(*[[results.networks.index(name) for name in shared]] * 2)
    published_cells = np.ix_(*[[published.networks.index(name) for name in shared]] * 2)

    def compare_with(set_name: str, values: np.ndarray) -> SetComparison:
        ours = results.cells(set_name, "biased")[run_cells]
        return _compare_set(ours, values[published_cells], results.counted[run_cells])

    return Comparison(
        published=published,
        networks=tuple(shared),
        natural=compare_with("natural", published.natural),
        inverted=compare_with("inverted", published.inverted),
    )


def _compare_set(ours: np.ndarray, theirs: np.ndarray, counted: np.ndarray) -> SetComparison:
    from scipy.stats import pearsonr, spearmanr  # takes a second to import, and is seldom needed

    defined = counted & np.isfinite(ours)
    values, expected = ours[defined], theirs[defined]
    varied = len(values) > 1 and np.ptp(values) > 0 and np.ptp(expected) > 0
    return SetComparison(
        difference=ours - theirs,
        mean=float(values.mean()) if len(values) else float("nan"),
        published_mean=float(expected.mean()) if len(values) else float("nan"),
        pearson=float(pearsonr(values, expected).statistic) if varied else float("nan"),
        spearman=float(spearmanr(values, expected).statistic) if varied else float("nan"),
    )


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Convert to what `netsim results --json --compare` prints under "compare"."""

    def set_json(matrix: SetComparison) -> dict[str, Any]:
        numbers = {name: plain(getattr(matrix, name)) for name in ("mean", "published_mean", "pearson", "spearman")}
        return numbers | {"difference": plain(matrix.difference.tolist())}

    return {
        "with": comparison.published.name,
        "source": comparison.published.source,
        "networks": list(comparison.networks),
        "natural": set_json(comparison.natural),
        "inverted": set_json(comparison.inverted),
    }
