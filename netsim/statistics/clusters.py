"""Clusters of networks and a map of them, from their similarities, with the support of each cluster.

M = networks, G = shards. The distance of two networks is 1 - (M_ij + M_ji) / 2.

Sources: Sokal and Michener 1958, University of Kansas Science Bulletin 38, 1409-1438 (average linkage); Torgerson 1952,
Psychometrika 17, 401-419, https://doi.org/10.1007/BF02288916 (classical scaling); Mardia, Kent and Bibby 1979,
Multivariate analysis, ch. 14 (share of the distances shown).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsim.similarity.uncertainty import jackknife_se, plain

FEWEST = 3
"""Least number of networks of clusters and of a map: two are one cluster, and a line."""

Split = frozenset[int]


@dataclass(frozen=True)
class Cluster:
    """A node of the tree.

    Attributes
    ----------
    members : tuple of int
        Networks below the node, sorted.
    children : tuple of int
        The two nodes that it joins: a network below M, else the cluster of this number minus M.
    height : float
        Mean distance between the members of both children.
    images : float
        Share, in [0, 1], of other draws of images in whose tree the same members are a cluster. 1 for the root.
    networks : float
        Share, in [0, 1], of trees without one network in which the rest of the members are a cluster. 1 for the root.
        Trees for which this cannot fail do not count, and without any other it is NaN.
    """

    members: tuple[int, ...]
    children: tuple[int, int]
    height: float
    images: float
    networks: float


@dataclass(frozen=True)
class Clusters:
    """Average linkage of M networks.

    Attributes
    ----------
    clusters : tuple of Cluster
        The M - 1 nodes, in the order in which they are joined.
    linkage : numpy.ndarray
        (M - 1, 4), as scipy.cluster.hierarchy has it.
    order : tuple of int
        Networks from one end of the tree to the other.
    """

    clusters: tuple[Cluster, ...]
    linkage: np.ndarray
    order: tuple[int, ...]

    def to_json(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Convert to plain values, with the networks' names (M,)."""
        return [
            {
                "networks": [names[member] for member in cluster.members],
                "height": plain(cluster.height),
                "support_images": plain(cluster.images),
                "support_networks": plain(cluster.networks),
            }
            for cluster in self.clusters
        ]


@dataclass(frozen=True)
class NetworkMap:
    """A flat map of networks whose distances are close to those of their similarities.

    Attributes
    ----------
    positions : numpy.ndarray
        (M, 2), centred; the axes have no meaning of their own.
    spread : numpy.ndarray
        (M,), standard error of each position over images: a length in the units of the map.
    shown : float
        Share of the distances that two dimensions show, in [0, 1].
    """

    positions: np.ndarray
    spread: np.ndarray
    shown: float

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Convert to plain values, with the networks' names (M,)."""
        places = zip(names, self.positions.tolist(), self.spread.tolist(), strict=True)
        return {
            "shown": plain(self.shown),
            "positions": {name: {"position": plain(place), "spread": plain(spread)} for name, place, spread in places},
        }


def distances(cells: np.ndarray) -> np.ndarray:
    """Return 1 - (M + M') / 2 of similarities (M, M, ...), with 0 on the diagonal; at least 0, although CKA may be > 1.

    Raises
    ------
    ValueError
        If `cells` is not (M, M, ...).

    Examples
    --------
    >>> distances(np.array([[1.0, 0.2], [0.4, 1.0]])).round(3).tolist()
    [[0.0, 0.7], [0.7, 0.0]]
    """
    values = np.asarray(cells, dtype=np.float64)
    if values.ndim < 2 or values.shape[0] != values.shape[1]:
        raise ValueError(f"cells must be (M, M, ...), got {values.shape}. Pass one matrix, without observers.")
    apart = np.maximum(1 - (values + values.swapaxes(0, 1)) / 2, 0)
    apart[np.arange(len(apart)), np.arange(len(apart))] = 0
    return apart


def cluster_networks(cells: np.ndarray, replicates: np.ndarray) -> Clusters:
    """Join networks by average linkage, and count how often each cluster is joined from other images and networks.

    Leaving out one of G shards changes similarities about G - 1 times less than other images would, in variance. So
    the replicates are spread from their mean by sqrt(G - 1) first; counted as they are, nearly every cluster would have
    the support 1.

    Parameters
    ----------
    cells
        Similarities (M, M), M of 3 or more, finite.
    replicates
        The same without each shard, (M, M, G).

    Returns
    -------
    Clusters
        M - 1 clusters with their support. Support is no p-value: 0.5 is a coin's toss, 1 is as often as was tried.

    Raises
    ------
    ValueError
        If there are fewer than 3 networks, or a similarity is not finite.

    References
    ----------
    Sokal and Michener 1958; Felsenstein 1985, Evolution 39, 783-791, for the support of a cluster by resampling.

    Examples
    --------
    >>> cells = np.array([[1, 0.9, 0.2, 0.1], [0.9, 1, 0.1, 0.2], [0.2, 0.1, 1, 0.8], [0.1, 0.2, 0.8, 1]])
    >>> tree = cluster_networks(cells, np.repeat(cells[..., None], 8, -1))
    >>> [(cluster.members, round(cluster.height, 2), cluster.images) for cluster in tree.clusters]
    [((0, 1), 0.1, 1.0), ((2, 3), 0.2, 1.0), ((0, 1, 2, 3), 0.85, 1.0)]
    """
    from scipy.cluster.hierarchy import leaves_list  # takes a second to import, and is seldom needed

    apart = distances(_finite(cells))
    linkage = _linkage(apart)
    m = len(apart)
    drawn = [set(_splits(_linkage(distances(values)))) for values in np.moveaxis(_spread(cells, replicates), -1, 0)]
    smaller = [_without(apart, network) for network in range(m)]
    clusters = [
        Cluster(
            members=tuple(sorted(split)),
            children=(int(row[0]), int(row[1])),
            height=float(row[2]),
            images=_share([split in splits for splits in drawn]),
            networks=1.0 if len(split) == m else _share(_kept(split, smaller)),
        )
        for split, row in zip(_splits(linkage), linkage, strict=True)
    ]
    return Clusters(tuple(clusters), linkage, tuple(int(leaf) for leaf in leaves_list(linkage)))


def map_networks(cells: np.ndarray, replicates: np.ndarray) -> NetworkMap:
    """Place networks on a plane by classical scaling, with the standard error of each position over images.

    Parameters
    ----------
    cells
        Similarities (M, M), M of 3 or more, finite.
    replicates
        The same without each shard, (M, M, G).

    Returns
    -------
    NetworkMap
        Positions, their spread, and the share of the distances shown: the two largest eigenvalues over the sum of all
        absolute ones. Maps without a shard are turned and mirrored onto the map of all before they are compared.

    Raises
    ------
    ValueError
        If there are fewer than 3 networks, or a similarity is not finite.

    References
    ----------
    Torgerson 1952; Mardia, Kent and Bibby 1979, eq. 14.4.7, for the share; Schonemann 1966, Psychometrika 31, 1-10, for
    the turning.

    Examples
    --------
    >>> cells = 1 - np.abs(np.subtract.outer([0.0, 0.3, 0.5], [0.0, 0.3, 0.5]))
    >>> line = map_networks(cells, np.repeat(cells[..., None], 8, -1))
    >>> round(line.shown, 3), np.abs(np.diff(line.positions[:, 0])).round(3).tolist()
    (1.0, [0.3, 0.2])
    """
    positions, shown = _scaled(distances(_finite(cells)))
    turned = [_turned(_scaled(distances(values))[0], positions) for values in np.moveaxis(_finite(replicates), -1, 0)]
    spread = np.sqrt(np.square(jackknife_se(np.stack(turned))).sum(axis=-1))
    return NetworkMap(positions, spread, shown)


# ---- parts ------------------------------------------------------------------------------------------------------


def _finite(cells: np.ndarray) -> np.ndarray:
    """Return similarities (M, M, ...) as float64, after checking them."""
    values = np.asarray(cells, dtype=np.float64)
    if len(values) < FEWEST:
        raise ValueError(f"clusters and maps must be of {FEWEST} networks or more, got {len(values)}. Add networks.")
    if not np.isfinite(values).all():
        undefined = int((~np.isfinite(values)).sum())
        raise ValueError(f"similarities must be finite, got {undefined} that are not. Leave their networks out.")
    return values


def _linkage(apart: np.ndarray) -> np.ndarray:
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    return np.asarray(linkage(squareform(apart, checks=False), "average"))


def _splits(linkage: np.ndarray) -> list[Split]:
    """List the networks below each node."""
    m = len(linkage) + 1
    below: list[Split] = [frozenset([leaf]) for leaf in range(m)]
    for first, second, *_ in linkage:
        below.append(below[int(first)] | below[int(second)])
    return below[m:]


def _spread(cells: np.ndarray, replicates: np.ndarray) -> np.ndarray:
    """Move replicates (M, M, G) away from their mean until they vary as values of other images do."""
    without = _finite(replicates)
    shards = without.shape[-1]
    return np.asarray(cells)[..., None] + np.sqrt(shards - 1) * (without - without.mean(axis=-1, keepdims=True))


def _without(apart: np.ndarray, network: int) -> set[Split]:
    """Cluster all networks but one; return its clusters, of the networks' own numbers."""
    rest = np.delete(np.arange(len(apart)), network)
    return {frozenset(int(rest[leaf]) for leaf in split) for split in _splits(_linkage(apart[np.ix_(rest, rest)]))}


def _kept(split: Split, smaller: list[set[Split]]) -> list[bool]:
    """Tell for each network left out whether the rest of a cluster is one; without those for which it must be."""
    rests = [split - {network} for network in range(len(smaller))]
    return [rest in splits for rest, splits in zip(rests, smaller, strict=True) if 1 < len(rest) < len(smaller) - 1]


def _share(held: list[bool]) -> float:
    return float(np.mean(held)) if held else float("nan")


def _scaled(apart: np.ndarray) -> tuple[np.ndarray, float]:
    """Return positions (M, 2) by classical scaling, and the share of the distances that they show."""
    m = len(apart)
    center = np.eye(m) - 1 / m
    values, vectors = np.linalg.eigh(-center @ np.square(apart) @ center / 2)
    first = np.argsort(-values)[:2]
    positions = vectors[:, first] * np.sqrt(np.maximum(values[first], 0))
    signs = np.sign(positions[np.abs(positions).argmax(axis=0), [0, 1]])
    total = np.abs(values).sum()
    return positions * np.where(signs == 0, 1, signs), float(
        np.maximum(values[first], 0).sum() / total
    ) if total else 1.0


def _turned(positions: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Turn and mirror positions, (M, 2) each and centred, as close as possible to others."""
    left, _, right = np.linalg.svd(positions.T @ onto)
    return positions @ left @ right
