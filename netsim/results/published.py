"""Published matrices to hold a run against. M = networks that both have.

They were read off a figure, with another number of images and perhaps other weights: agreement in rank and in the mean
is what to look for, not in the second digit.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from netsim.errors import RunError, SettingsError, nearest
from netsim.results.matrices import off_diagonal
from netsim.results.results import Results
from netsim.similarity.uncertainty import plain

FEWEST = 3
"""Networks in common: two make a single number of natural similarity."""


@dataclass(frozen=True)
class PublishedMatrices:
    """Natural and inverted CKA (M, M), row = through, as published."""

    name: str
    source: str
    provenance: str
    networks: tuple[str, ...]
    natural: np.ndarray
    inverted: np.ndarray


@dataclass(frozen=True)
class SetComparison:
    """A run's matrix against a published one, over the M(M-1) cells off the diagonal; undefined cells are left out.

    `difference` is (M, M), this run minus the published value. Correlations are NaN where one side does not vary.
    """

    difference: np.ndarray
    mean: float
    published_mean: float
    pearson: float
    spearman: float


@dataclass(frozen=True)
class Comparison:
    """Biased values, as the published ones most likely are."""

    published: PublishedMatrices
    networks: tuple[str, ...]  # of this run
    natural: SetComparison
    inverted: SetComparison


@cache
def published_matrices(name: str) -> PublishedMatrices:
    """Matrices that come with netsim: `jones2022`. Raises SettingsError for another name."""
    folder = files("netsim.results")
    known = {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    if name not in known:
        raise SettingsError(f"no published matrices {name!r}{nearest(name, known)}")
    values: dict[str, Any] = yaml.safe_load(known[name].read_text())
    return PublishedMatrices(
        name=name,
        source=values["source"],
        provenance=values["provenance"],
        networks=tuple(values["networks"]),
        natural=np.array(values["natural"]),
        inverted=np.array(values["inverted"]),
    )


def compare(results: Results, published: PublishedMatrices) -> Comparison:
    """Hold a run's matrices against published ones, on the networks that both have.

    A network of a run is the published one of its name, unless it is one of the small ones for small images.
    Raises RunError if fewer than 3 are in both.
    """
    shared = [
        name
        for name in results.networks
        if name in published.networks and not results.summaries[name].reference.startswith("small:")
    ]
    if len(shared) < FEWEST:
        raise RunError(
            f"this run has {len(shared)} of the networks of {published.name}, a comparison needs {FEWEST}: "
            f"{', '.join(published.networks)}; networks of other names are given these by `name=reference`"
        )
    here = np.ix_(*[[results.networks.index(name) for name in shared]] * 2)
    there = np.ix_(*[[published.networks.index(name) for name in shared]] * 2)

    def against(set_name: str, values: np.ndarray) -> SetComparison:
        return _compare_set(results.cells(set_name, "biased")[here], values[there])

    return Comparison(
        published=published,
        networks=tuple(shared),
        natural=against("natural", published.natural),
        inverted=against("inverted", published.inverted),
    )


def _compare_set(ours: np.ndarray, theirs: np.ndarray) -> SetComparison:
    from scipy.stats import pearsonr, spearmanr  # takes a second to import, and is seldom asked for

    found, expected = off_diagonal(ours), off_diagonal(theirs)
    defined = np.isfinite(found)
    found, expected = found[defined], expected[defined]
    varied = len(found) > 1 and np.ptp(found) > 0 and np.ptp(expected) > 0
    return SetComparison(
        difference=ours - theirs,
        mean=float(found.mean()) if len(found) else float("nan"),
        published_mean=float(expected.mean()) if len(found) else float("nan"),
        pearson=float(pearsonr(found, expected).statistic) if varied else float("nan"),
        spearman=float(spearmanr(found, expected).statistic) if varied else float("nan"),
    )


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """What `netsim results --json --compare` prints under "compare"."""

    def of_set(found: SetComparison) -> dict[str, Any]:
        numbers = {name: plain(getattr(found, name)) for name in ("mean", "published_mean", "pearson", "spearman")}
        return numbers | {"difference": plain(found.difference.tolist())}

    return {
        "with": comparison.published.name,
        "source": comparison.published.source,
        "networks": list(comparison.networks),
        "natural": of_set(comparison.natural),
        "inverted": of_set(comparison.inverted),
    }
