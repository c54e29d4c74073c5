"""docs/store.md as code: the names of sets and rows, the paths and specifications of arrays, and fixed point."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from netsim.settings import SweepSettings
from netsim.store.arrays import ArraySpec


class Dimensions(Protocol):
    """The numbers of a network that shape its arrays."""

    @property
    def width(self) -> int: ...

    @property
    def input_shape(self) -> tuple[int, int, int]: ...


Networks = Callable[[str], Dimensions]
"""The dimensions of a network, by its name."""

NATURAL = "natural"
"""The name of the set of target images."""


def inverted(through: str) -> str:
    """The name of the set of images inverted through a network."""
    return f"inverted/{through}"


def sets(settings: SweepSettings) -> list[str]:
    return [NATURAL, *(inverted(name) for name in settings.names)]


def rows(settings: SweepSettings) -> list[str]:
    """The names of the rows of both matrices: `natural/<network>` and `inverted/<through>`."""
    return [f"{NATURAL}/{name}" for name in settings.names] + [inverted(name) for name in settings.names]


def row_parts(row: str) -> tuple[str, str]:
    """The set whose images a row is about, and the network of the row: `natural/vgg` -> `natural`, `vgg`."""
    kind, _, network = row.partition("/")
    return (NATURAL if kind == NATURAL else row), network


def weights_path(name: str) -> str:
    return f"weights/{name}.safetensors"


def checkpoint_path(name: str) -> str:
    return f"training/{name}.checkpoint"


def draw_arrays(settings: SweepSettings, network: Networks) -> list[ArraySpec]:
    n, shape = settings.pairs.count, network(settings.names[0]).input_shape
    columns = [ArraySpec(f"pairs/{name}", (n,), "int64", ("pair",)) for name in PAIR_COLUMNS]
    return columns + [
        ArraySpec(f"images/{kind}", (n, *shape), "uint8", IMAGE_DIMS, attributes={"scale_factor": 1 / 255})
        for kind in ("seed", "target")
    ]


PAIR_COLUMNS = ("seed", "target", "seed_label", "target_label")


IMAGE_DIMS = ("pair", "channel", "y", "x")


IMAGE_STEPS = 65535
"""Inverted images are stored as uint16 fixed point by default: L2 error 0.0017 at 224 px, where uint8 has 0.44."""


def history_iterations(iterations: int) -> np.ndarray:
    """The iterations whose loss is kept: all up to 64, else 0 and up to 64 on a logarithmic scale to the last."""
    if iterations <= 64:
        return np.arange(iterations + 1)
    return np.unique(np.concatenate([[0], np.geomspace(1, iterations, num=64).round().astype(np.int64)]))


def invert_arrays(settings: SweepSettings, network: Networks) -> list[ArraySpec]:
    n, shape = settings.pairs.count, network(settings.names[0]).input_shape
    inversion = settings.inversion
    points = history_iterations(inversion.iterations)
    scale = {"scale_factor": 1 / IMAGE_STEPS} if inversion.stored_as == "uint16" else {}
    specs = []
    for name in settings.names:
        group = inverted(name)
        specs.append(ArraySpec(f"{group}/image", (n, *shape), inversion.stored_as, IMAGE_DIMS, attributes=scale))
        specs.append(
            ArraySpec(f"{group}/history", (n, len(points)), "float32", ("pair", "iteration"), {"iteration": points})
        )
        specs.append(
            ArraySpec(
                f"{group}/losses", (n, len(QUANTITIES)), "float32", ("pair", "quantity"), {"quantity": QUANTITIES}
            )
        )
    return specs


QUANTITIES = (
    "initial_loss",
    "final_loss",
    "distance",
    "best_iteration",
    "iterations",
    "stop_reason",  # an index into netsim.inversion.invert.STOP_REASONS
    "stalled",
    "nonfinite",
)
"""What is kept of each inversion. One array of float32, in which counts are exact, as object storage is slow with many
small objects."""


def quantity(losses: np.ndarray, name: str) -> np.ndarray:
    """A column of `losses` (n, len(QUANTITIES)): (n,)"""
    return losses[:, QUANTITIES.index(name)]


def to_stored(images: np.ndarray, dtype: str) -> np.ndarray:
    """Convert images in [0, 1] to what is stored: float32, or uint16 where 65535 is 1."""
    if dtype == "float32":
        return images.astype(np.float32)
    exact = images.astype(np.float64)  # one copy of a shard, where an expression would make three
    exact *= IMAGE_STEPS
    return np.rint(exact, out=exact).astype(np.uint16)


def from_stored(images: np.ndarray) -> np.ndarray:
    """Convert stored images to float32 in [0, 1]."""
    values = images.astype(np.float32)
    if images.dtype != np.float32:
        values /= np.float32(IMAGE_STEPS)
    return values


def embed_arrays(settings: SweepSettings, network: Networks) -> list[ArraySpec]:
    n = settings.pairs.count
    widths = {name: network(name).width for name in settings.names}
    return [
        # the feature axis has its network's name: widths differ, and xarray wants one length per name
        ArraySpec(representation_path(set_name, name), (n, width), "float32", ("pair", f"feature_{name}"))
        for set_name in sets(settings)
        for name, width in widths.items()
    ]


def representation_path(set_name: str, observer: str) -> str:
    return f"representations/{set_name}/{observer}"


MOMENTS = ("square", "q", "tx", "ty")
"""The sums that CKA is made of, as `netsim.similarity.hsic.Hsic` names them."""


def row_pairs(names: tuple[str, ...], row: str) -> list[tuple[str, str]]:
    """The model pairs whose sums a row needs, so that all rows of a set together have each pair once.

    A row of the natural matrix is the network with itself and with those after it. A row of the inverted matrix is a
    set of its own: through and every observer, and each observer with itself.
    """
    set_name, network = row_parts(row)
    if set_name == NATURAL:
        return [(network, other) for other in names[names.index(network) :]]
    return [(network, other) for other in names] + [(other, other) for other in names if other != network]


def moments_path(row: str) -> str:
    return f"similarity/{row}/moments"


def aggregate_arrays(settings: SweepSettings, _network: Networks) -> list[ArraySpec]:
    left_out = 1 + settings.pairs.shards  # the whole, then without each shard
    return [
        ArraySpec(
            moments_path(row),
            (len(pairs), len(MOMENTS), left_out),
            "float64",
            ("model_pair", "moment", "left_out"),
            {"model_pair": [f"{first} {second}" for first, second in pairs], "moment": MOMENTS},
        )
        for row in rows(settings)
        for pairs in [row_pairs(settings.names, row)]
    ]


MATRICES = ("cka", "cka_se", "cka_unbiased", "cka_unbiased_se", "floor")
"""Arrays of both matrices under `results/`."""


def report_arrays(settings: SweepSettings, _network: Networks) -> list[ArraySpec]:
    """Both matrices, for whoever opens the store without netsim."""
    names = settings.names
    dims = {"set": ("natural", "inverted"), "through": names, "observer": names}
    shape = (2, len(names), len(names))
    return [ArraySpec(f"results/{kind}", shape, "float64", tuple(dims), dims) for kind in MATRICES]
