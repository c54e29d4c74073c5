"""Clusters and maps: against loops, SciPy, and networks that lie where they are known to lie."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist, squareform

from netsim.statistics.clusters import cluster_networks, distances, map_networks

SHARDS = 8


def matrix(m=6, noise=0.1, rng_seed=0):
    rng = np.random.default_rng(rng_seed)
    center = rng.uniform(0.2, 0.6, (m, m, 1))
    shards = center + rng.normal(0, noise, (m, m, SHARDS))
    shards[np.arange(m), np.arange(m)] = 1
    cells = shards.mean(axis=-1)
    return cells, (SHARDS * cells[..., None] - shards) / (SHARDS - 1)


def loop_tree(cells):
    """Average linkage as it was written down: join the two clusters of least mean distance. Returns them by height."""
    m = len(cells)
    clusters, joined = [frozenset([i]) for i in range(m)], {}
    while len(clusters) > 1:
        mean = {
            (a, b): sum(1 - (cells[i, j] + cells[j, i]) / 2 for i in a for j in b) / len(a) / len(b)
            for x, a in enumerate(clusters)
            for b in clusters[x + 1 :]
        }
        (a, b), height = min(mean.items(), key=lambda item: item[1])
        clusters = [each for each in clusters if each not in (a, b)] + [a | b]
        joined[a | b] = height
    return joined


@pytest.mark.parametrize("rng_seed", range(6))
def test_the_tree_and_its_support_are_those_of_loops(rng_seed):
    cells, replicates = matrix(rng_seed=rng_seed)
    expected = loop_tree(cells)
    tree = cluster_networks(cells, replicates)
    mean = replicates.mean(axis=-1)
    drawn = [loop_tree(cells + np.sqrt(SHARDS - 1) * (replicates[..., g] - mean)) for g in range(SHARDS)]
    smaller = []
    for network in range(6):
        rest = [i for i in range(6) if i != network]
        smaller.append({frozenset(rest[i] for i in split) for split in loop_tree(cells[np.ix_(rest, rest)])})
    assert [frozenset(cluster.members) for cluster in tree.clusters] == sorted(expected, key=expected.get)
    for cluster in tree.clusters:
        split = frozenset(cluster.members)
        assert abs(cluster.height - expected[split]) < 1e-9
        assert cluster.images == sum(split in splits for splits in drawn) / SHARDS
        kept = [split - {i} in smaller[i] for i in range(6) if 1 < len(split - {i}) < 5]
        if len(split) < 6 and kept:
            assert cluster.networks == sum(kept) / len(kept)
    assert {cluster.images for cluster in tree.clusters} - {0.0, 1.0}  # or the test would see no support at all
    assert tree.clusters[-1].images == tree.clusters[-1].networks == 1


def test_heights_and_order_are_those_of_scipy():
    cells, replicates = matrix(9)
    tree = cluster_networks(cells, replicates)
    expected = linkage(squareform(distances(cells)), "average")
    assert np.abs(tree.linkage - expected).max() < 1e-12
    assert np.allclose(cophenet(tree.linkage), cophenet(expected))
    assert sorted(tree.order) == list(range(9))
    for cluster in tree.clusters:  # those of a cluster stand beside each other
        places = sorted(tree.order.index(member) for member in cluster.members)
        assert places == list(range(places[0], places[0] + len(places)))


def test_clear_clusters_have_full_support_and_random_ones_have_not():
    clear = np.where(np.kron(np.eye(2), np.ones((4, 4))) > 0, 0.8, 0.2) + np.random.default_rng(0).normal(
        0, 0.01, (8, 8)
    )
    tree = cluster_networks(clear, np.repeat(clear[..., None], SHARDS, -1))
    support = {cluster.members: (cluster.images, cluster.networks) for cluster in tree.clusters}
    assert support[0, 1, 2, 3] == support[4, 5, 6, 7] == (1, 1)
    equal, without = matrix(8, noise=0.5)
    weakest = min(cluster.images for cluster in cluster_networks(0 * equal + 0.3, 0 * without + without / 9).clusters)
    assert weakest < 0.5


def test_support_comes_from_replicates_spread_like_other_images():
    """Left-out shards alone hardly move a tree: of clusters that other images often split, they split few."""
    cells, replicates = matrix(8, noise=0.15)
    narrow = cells[..., None] + (replicates - replicates.mean(axis=-1, keepdims=True)) / np.sqrt(SHARDS - 1)
    spread, as_they_are = (
        np.mean([cluster.images for cluster in cluster_networks(cells, each).clusters]) for each in (replicates, narrow)
    )
    assert spread < as_they_are


def test_distances_are_symmetric_and_never_negative():
    cells, _ = matrix()
    cells[0, 1], cells[1, 0] = 1.1, 1.05
    apart = distances(cells)
    assert (apart == apart.T).all() and (apart.diagonal() == 0).all() and apart[0, 1] == 0
    assert apart[2, 5] == pytest.approx(1 - (cells[2, 5] + cells[5, 2]) / 2)


def loop_map(apart):
    """Torgerson's scaling, with loops for the double centring."""
    m = len(apart)
    squares = [[apart[i][j] ** 2 for j in range(m)] for i in range(m)]
    rows = [sum(line) / m for line in squares]
    every = sum(rows) / m
    inner = np.array([[-(squares[i][j] - rows[i] - rows[j] + every) / 2 for j in range(m)] for i in range(m)])
    values, vectors = np.linalg.eig(inner)
    first = sorted(range(m), key=lambda k: -values[k].real)[:2]
    places = np.array([[vectors[i, k].real * max(values[k].real, 0) ** 0.5 for k in first] for i in range(m)])
    return places, sum(values[k].real for k in first) / sum(abs(value) for value in values)


def test_the_map_is_that_of_loops():
    cells, replicates = matrix()
    placed = map_networks(cells, replicates)
    expected, shown = loop_map(distances(cells))
    assert np.abs(pdist(placed.positions) - pdist(expected)).max() < 1e-9
    assert abs(placed.shown - shown) < 1e-9


def test_the_spread_of_a_place_is_the_jackknife_of_maps_turned_by_scipy():
    from scipy.linalg import orthogonal_procrustes

    cells, replicates = matrix(noise=0.02)
    placed = map_networks(cells, replicates)
    maps = []
    for g in range(SHARDS):
        other, _ = loop_map(distances(replicates[..., g]))
        turn, _ = orthogonal_procrustes(other, placed.positions)
        maps.append(other @ turn)
    for network in range(6):
        mean = sum(each[network] for each in maps) / SHARDS
        squares = sum(float(np.square(each[network] - mean).sum()) for each in maps)
        assert abs(placed.spread[network] - ((SHARDS - 1) / SHARDS * squares) ** 0.5) < 1e-9


def test_networks_in_a_plane_are_where_they_are():
    points = np.random.default_rng(0).uniform(0, 0.4, (7, 2))
    cells = 1 - squareform(pdist(points))
    placed = map_networks(cells, np.repeat(cells[..., None], 4, -1))
    assert np.allclose(pdist(placed.positions), pdist(points), atol=1e-12) and placed.shown == pytest.approx(1)
    assert placed.spread.max() < 1e-9


def test_the_map_has_the_same_sides_up_whatever_the_solver_does():
    for rng_seed in range(8):
        placed = map_networks(*matrix(rng_seed=rng_seed)).positions
        assert (placed[np.abs(placed).argmax(axis=0), [0, 1]] > 0).all()
        assert np.allclose(placed.mean(axis=0), 0, atol=1e-12)


def test_networks_that_are_all_alike_are_in_one_place():
    placed = map_networks(np.ones((4, 4)), np.ones((4, 4, 3)))
    assert (placed.positions == 0).all() and placed.shown == 1


def test_undefined_and_few_networks_are_refused():
    cells, replicates = matrix()
    cells[0, 1] = np.nan
    for function in (cluster_networks, map_networks):
        with pytest.raises(ValueError, match="must be finite, got 1 that are not"):
            function(cells, replicates)
        with pytest.raises(ValueError, match="must be of 3 networks or more, got 2"):
            function(cells[:2, :2], replicates[:2, :2])
    with pytest.raises(ValueError, match=r"cells must be \(M, M, ...\), got \(3, 6\)"):
        distances(cells[:3])


def test_json_names_the_networks():
    cells, replicates = matrix(4)
    names = ["a", "b", "c", "d"]
    nodes = cluster_networks(cells, replicates).to_json(names)
    assert len(nodes) == 3 and sorted(nodes[-1]["networks"]) == names
    assert list(map_networks(cells, replicates).to_json(names)["positions"]) == names
