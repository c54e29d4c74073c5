"""Linear CKA of nine networks, all 36 pairs: netsim against the published function and other libraries.

Representations have the real widths of the paper's nine networks. netsim reads them as float32 from a Zarr store; the
others receive them in memory, as they require. Everything runs in one process, one after the other; times are CPU
seconds of all threads. Other libraries (peers) are measured if they are installed:

    pip install --no-deps --target runs/benchmarks/peers thingsvision pytorch-cka torch-cka

`--no-deps`, because only their CKA is used: other parts of thingsvision require TensorFlow.
"""

import argparse
import importlib.util
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import zarr
from rich.console import Console

from benchmarks.inversion import processor
from benchmarks.usage import usage_of
from flows.cli.console import table_of
from netsim.similarity.blocked import blocked_similarity
from netsim.similarity.cka import similarity, with_self
from netsim.similarity.streaming import multiplications

WIDTHS = (2208, 1280, 2048, 512, 2048, 1024, 4096, 2048, 2048)
PAIRS = tuple(itertools.combinations(range(len(WIDTHS)), 2))
D = sum(WIDTHS)
PEERS = Path("runs/benchmarks/peers")
Shards = Sequence[Callable[[], dict[int, np.ndarray]]]


@contextmanager
def stored(n: int, shard_size: int) -> Iterator[Shards]:
    """Write shards to a Zarr store: 64 shared directions and three times as much noise, rectified as after a ReLU."""
    with tempfile.TemporaryDirectory(prefix="netsim-similarity-") as folder:
        group = zarr.open_group(folder, mode="w")
        for network, width in enumerate(WIDTHS):
            group.create_array(str(network), shape=(n, width), chunks=(shard_size, width), dtype="float32")
        for start in range(0, n, shard_size):
            for network, rows in _draw(start, shard_size).items():
                _array(group, network)[start : start + shard_size] = rows
        yield [partial(_read, group, start, shard_size) for start in range(0, n, shard_size)]


def _draw(start: int, count: int) -> dict[int, np.ndarray]:
    rng = np.random.default_rng([0, start])
    shared = rng.standard_normal((count, 64), dtype=np.float32)
    representations = {}
    for network, width in enumerate(WIDTHS):
        mixing = np.random.default_rng([1, network]).standard_normal((64, width), dtype=np.float32)
        noise = rng.standard_normal((count, width), dtype=np.float32)
        representations[network] = np.maximum(shared @ mixing / 8 + 3 * noise, 0)
    return representations


def _read(group: zarr.Group, start: int, count: int) -> dict[int, np.ndarray]:
    return {network: np.asarray(_array(group, network)[start : start + count]) for network in range(len(WIDTHS))}


def _array(group: zarr.Group, network: int) -> Any:
    return group[str(network)]


def peak_of(dtype: type[np.floating[Any]]) -> float:
    """Measure FLOP/s of a matrix product of size 4096: the better BLAS of numpy's and torch's, best of three runs."""
    size = 4096
    a = np.random.default_rng(0).standard_normal((size, size)).astype(dtype)
    t = torch.from_numpy(a)
    times = [usage_of(work).cpu for work in (lambda: a @ a[::-1], lambda: t @ t.flip(0)) for _ in range(3)]
    return 2 * size**3 / min(times)


def published_cka(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Compute biased linear CKA as published: from features, in their precision, three products per pair."""
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    return (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())


# Peers ---------------------------------------------------------------------------------------------------------------


def installed(package: str) -> bool:
    """Tell if a peer is installed."""
    return (PEERS / package).exists()


def peer(package: str, *modules: str) -> Any:
    """Load modules of a peer from their files, without the rest of the package; return the last one."""
    module: Any = None
    for name in modules:
        path = PEERS / package / f"{name}.py"
        full = f"netsim_peer_{package}.{path.stem}"
        sys.modules.setdefault(f"netsim_peer_{package}", ModuleType(f"netsim_peer_{package}")).__path__ = []
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec and spec.loader
        module = sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def thingsvision_pair(rows: dict[int, np.ndarray], pair: tuple[int, int]) -> float:
    """Compute both estimators of one pair by thingsvision, as netsim does."""
    module = peer("thingsvision", "core/cka/base", "core/cka/cka_base", "core/cka/cka_numpy")
    x, y = (rows[network] for network in pair)
    return sum(module.CKANumPy(m=len(x), kernel="linear", unbiased=u).compare(x, y) for u in (False, True))


def pytorch_cka_blocks(shards: Shards) -> np.ndarray:
    """Compute CKA from pytorch-cka's HSIC of batches, pair by pair as its `compute_cka` does for two models."""
    module = peer("cka", "hsic")
    values = np.zeros((len(PAIRS), 3))
    for shard in shards:
        rows = {network: torch.from_numpy(array) for network, array in shard().items()}
        for index, (x, y) in enumerate(PAIRS):
            grams = [(rows[network] @ rows[network].T)[None] for network in (x, y)]
            values[index] += [float(part.squeeze()) for part in module.hsic(*grams)]
    return values[:, 0] / np.sqrt(values[:, 1] * values[:, 2])


def torch_cka_blocks(shards: Shards) -> np.ndarray:
    """Compute CKA from torch-cka's HSIC of batches, three per pair as its `compare` does."""
    module = peer("torch_cka", "utils", "cka")
    hsic = partial(module.CKA._HSIC, argparse.Namespace(device="cpu"))
    values = np.zeros((len(PAIRS), 3))
    for shard in shards:
        rows = {network: torch.from_numpy(array) for network, array in shard().items()}
        for index, (x, y) in enumerate(PAIRS):
            K, L = (rows[network] @ rows[network].T for network in (x, y))
            K.fill_diagonal_(0)
            L.fill_diagonal_(0)
            values[index] += [hsic(K, L), hsic(K, K), hsic(L, L)]
    return values[:, 0] / np.sqrt(values[:, 1] * values[:, 2])


# The two comparisons -------------------------------------------------------------------------------------------------


def exact(n: int, shard_size: int, *, pairs_of_peers: int) -> None:
    """Time all pairs by netsim, both estimators with the jackknife, and by others pair by pair; print a table."""
    peak, double_peak = peak_of(np.float32), peak_of(np.float64)
    with stored(n, shard_size) as shards:
        usage = usage_of(lambda: similarity(shards, PAIRS))
        ours = usage.cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows = {i: np.concatenate(parts) for i, parts in _by_network(shards).items()} if pairs_of_peers else {}
    table = table_of("exact, 36 pairs", "CPU seconds", "times netsim", "measured on")
    table.add_row("netsim, both estimators, jackknife, from Zarr", f"{ours:.1f}", "1", "36 pairs")
    chosen = PAIRS[:: max(1, len(PAIRS) // pairs_of_peers)] if pairs_of_peers else ()
    if chosen:
        tensors = {network: torch.from_numpy(array) for network, array in rows.items()}
        theirs = sum(usage_of(lambda: published_cka(tensors[x], tensors[y])).cpu for x, y in PAIRS)  # noqa: B023
        table.add_row(
            "published function, biased, float32, in memory", f"{theirs:.1f}", f"{theirs / ours:.2f}", "36 pairs"
        )
        if installed("thingsvision"):
            spent = [usage_of(lambda: thingsvision_pair(rows, pair)).cpu for pair in chosen]  # noqa: B023
            theirs = _of_all_pairs(spent, chosen)
            table.add_row(
                "thingsvision, both, float32, in memory",
                f"{theirs:.1f}",
                f"{theirs / ours:.2f}",
                f"{len(chosen)} pairs, by width",
            )
    Console(width=140).print(table)
    floor = n * D**2
    print(
        f"n = {n:,} in shards of {shard_size}: {floor / ours / peak:.0%} of the float32 peak ({peak / 1e9:.0f} GFLOP/s)"
    )
    print(f"for the {floor / 1e12:.1f} TFLOP of all products, each once; most memory of the process {memory:.2f} GiB")
    done = 2 * multiplications(n, dict(enumerate(WIDTHS)), with_self(PAIRS))
    share = f"{done / ours / double_peak:.0%} of the float64 peak ({double_peak / 1e9:.0f} GFLOP/s)"
    print(f"it multiplied {done / 1e12:.1f} TFLOP in float64, at {share}")
    print(usage)


def _by_network(shards: Shards) -> dict[int, list[np.ndarray]]:
    read = [shard() for shard in shards]
    return {network: [shard[network] for shard in read] for network in range(len(WIDTHS))}


def _of_all_pairs(spent: Sequence[float], chosen: Sequence[tuple[int, int]]) -> float:
    """Extrapolate seconds from some pairs to all: Gram matrices cost in proportion to widths, the rest is constant."""
    widths = np.array([[1, WIDTHS[x] + WIDTHS[y]] for x, y in chosen])
    constant, slope = np.linalg.lstsq(widths, np.array(spent), rcond=None)[0]
    return float(sum(constant + slope * (WIDTHS[x] + WIDTHS[y]) for x, y in PAIRS))


def blocked(n: int, shard_size: int) -> None:
    """Time the U-statistic of blocks on the same features and blocks, and print a table with differences of values."""
    with stored(n, shard_size) as shards:
        read = [shard() for shard in shards]
    in_memory = [partial(dict, rows) for rows in read]
    values: dict[str, Any] = {}

    def netsim() -> None:
        values["netsim"] = np.array([value.cka for value in blocked_similarity(in_memory, PAIRS).values()])

    works = {"netsim, with jackknife": netsim}
    for package, name, work in (
        ("cka", "pytorch-cka", pytorch_cka_blocks),
        ("torch_cka", "torch-cka", torch_cka_blocks),
    ):
        if installed(package):
            works[name] = lambda name=name, work=work: values.update({name: work(in_memory)})  # type: ignore[misc]
    spent = {name: min(usage_of(work).cpu for _ in range(2)) for name, work in works.items()}
    table = table_of(f"blocks of {shard_size}, 36 pairs", "CPU seconds", "times netsim", "largest difference")
    for name, seconds in spent.items():
        off = np.abs(values[name.partition(",")[0]] - values["netsim"]).max()
        table.add_row(name, f"{seconds:.2f}", f"{seconds / spent['netsim, with jackknife']:.1f}", f"{off:.1e}")
    Console(width=140).print(table)


def main() -> None:
    """Print both tables, the date and the processor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000, help="images")
    parser.add_argument("--shard-size", type=int, default=500)
    parser.add_argument("--block", type=int, default=256, help="rows per block")
    parser.add_argument("--peers", type=int, default=3, help="pairs to measure slow peers on; 0: netsim alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    exact(options.n, options.shard_size, pairs_of_peers=options.peers)
    if options.peers:
        blocked(min(options.n, 10_000) // options.block * options.block, options.block)
    print(f"{time.strftime('%Y-%m-%d')}, {processor()}")


if __name__ == "__main__":
    main()
