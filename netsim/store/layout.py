"""docs/store.md as code: names of sets and rows, paths and specifications of arrays, fixed point.

n = pairs, d = width of a representation, M = networks, G = shards, C H W = an image.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from netsim.settings import SweepSettings
from netsim.store.arrays import ArraySpec

NATURAL = "natural"
"""Name of the set of target images."""

PAIR_COLUMNS = ("seed", "target", "seed_label", "target_label")
"""Arrays under `pairs/`."""

IMAGE_DIMS = ("pair", "channel", "y", "x")
"""Dimensions of every array of images."""

IMAGE_STEPS = 65535
"""Inverted images are uint16 fixed point by default: L2 error 0.0017 at 224 px, where uint8 has 0.44."""

QUANTITIES = (
    "initial_loss",
    "final_loss",
    "distance",
    "best_iteration",
    "iterations",
    "stop_reason",  # an index into netsim.settings.STOP_REASONS
    "stalled",
    "nonfinite",
)
"""Columns of `losses`. One float32 array, in which counts are exact: object storage is slow with many small objects."""

MOMENTS = ("square", "q", "tx", "ty")
"""Sums that CKA is made of, by their names in `netsim.similarity.hsic.Hsic`."""

MATRICES = ("cka", "cka_se", "cka_unbiased", "cka_unbiased_se", "floor")
"""Arrays of both matrices, under `results/`."""


class Dimensions(Protocol):
    """The numbers of a network that shape its arrays."""

    @property
    def width(self) -> int:
        """Features of the representation."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image."""


Networks = Callable[[str], Dimensions]
"""Dimensions of a network, by its name."""


# ---- names


def inverted(through: str) -> str:
    """Name the set of images inverted through a network."""
    return f"inverted/{through}"


def sets(settings: SweepSettings) -> list[str]:
    """List the sets of a sweep: `natural` and `inverted/<through>`."""
    return [NATURAL, *(inverted(name) for name in settings.names)]


def rows(settings: SweepSettings) -> list[str]:
    """List the rows of both matrices: `natural/<network>` and `inverted/<through>`."""
    return [f"{NATURAL}/{name}" for name in settings.names] + [inverted(name) for name in settings.names]


def row_parts(row: str) -> tuple[str, str]:
    """Split a row into the set it is about and its network: `natural/vgg` -> `natural`, `vgg`."""
    kind, _, network = row.partition("/")
    return (NATURAL if kind == NATURAL else row), network


def row_pairs(names: tuple[str, ...], row: str) -> list[tuple[str, str]]:
    """List the model pairs whose sums a row needs, so that all rows of a set together have each pair once.

    A row of the natural matrix is the network with itself and with those after it. A row of the inverted matrix is a
    set of its own: through with every observer, and each observer with itself.
    """
    set_name, network = row_parts(row)
    if set_name == NATURAL:
        return [(network, other) for other in names[names.index(network) :]]
    return [(network, other) for other in names] + [(other, other) for other in names if other != network]


# ---- paths


def weights_path(name: str) -> str:
    """Return the path of the weights of a network trained here."""
    return f"weights/{name}.safetensors"


def checkpoint_path(name: str) -> str:
    """Return the path of the last epoch of a training that is not finished."""
    return f"training/{name}.checkpoint"


def representation_path(set_name: str, observer: str) -> str:
    """Return the path of an observer's representations of a set, an array (n, d)."""
    return f"representations/{set_name}/{observer}"


def moments_path(row: str) -> str:
    """Return the path of the sums behind a row of a matrix."""
    return f"similarity/{row}/moments"


# ---- arrays of each stage


def draw_arrays(settings: SweepSettings, network: Networks) -> list[ArraySpec]:
    """Specify indices, labels and images of the pairs."""
    n, shape = settings.pairs.count, network(settings.names[0]).input_shape
    columns = [ArraySpec(f"pairs/{name}", (n,), "int64", ("pair",)) for name in PAIR_COLUMNS]
    return columns + [
        ArraySpec(f"images/{kind}", (n, *shape), "uint8", IMAGE_DIMS, attributes={"scale_factor": 1 / 255})
        for kind in ("seed", "target")
    ]


def invert_arrays(settings: SweepSettings, network: Networks) -> list[ArraySpec]:
    """Specify inverted images, their losses, and the history of losses."""
    n, shape = settings.pairs.count, network(settings.names[0]).input_shape
    inversion = settings.inversion
    points = history_iterations(inversion.iterations)
    scale = {"scale_factor": 1 / IMAGE_STEPS} if inversion.stored_as == "uint16" else {}
    specs = []
    for name in settings.names:
        group = inverted(name)
        specs += [
            ArraySpec(f"{group}/image", (n, *shape), inversion.stored_as, IMAGE_DIMS, attributes=scale),
            ArraySpec(f"{group}/history", (n, len(points)), "float32", ("pair", "iteration"), {"iteration": points}),
            ArraySpec(
                f"{group}/losses", (n, len(QUANTITIES)), "float32", ("pair", "quantity"), {"quantity": QUANTITIES}
            ),
        ]
    return specs


def embed_arrays(settings: SweepSettings, network: Networks) -> list[ArraySpec]:
    """Specify the representations of every set by every observer."""
    n = settings.pairs.count
    widths = {name: network(name).width for name in settings.names}
    return [
        # the feature axis has its network's name: widths differ, and xarray wants one length per name
        ArraySpec(representation_path(set_name, name), (n, width), "float32", ("pair", f"feature_{name}"))
        for set_name in sets(settings)
        for name, width in widths.items()
    ]


def aggregate_arrays(settings: SweepSettings, _network: Networks) -> list[ArraySpec]:
    """Specify the sums behind each row: over all shards, then with each shard left out."""
    return [
        ArraySpec(
            moments_path(row),
            (len(pairs), len(MOMENTS), 1 + settings.pairs.shards),
            "float64",
            ("model_pair", "moment", "left_out"),
            {"model_pair": [f"{first} {second}" for first, second in pairs], "moment": MOMENTS},
        )
        for row in rows(settings)
        for pairs in [row_pairs(settings.names, row)]
    ]


def report_arrays(settings: SweepSettings, _network: Networks) -> list[ArraySpec]:
    """Specify both matrices, for readers that open the store without netsim."""
    names = settings.names
    dims = {"set": ("natural", "inverted"), "through": names, "observer": names}
    shape = (2, len(names), len(names))
    return [ArraySpec(f"results/{kind}", shape, "float64", tuple(dims), dims) for kind in MATRICES]


# ---- values


def history_iterations(iterations: int) -> np.ndarray:
    """List the iterations whose loss is kept: all up to 64, else 0 and up to 64 on a logarithmic scale to the last."""
    if iterations <= 64:
        return np.arange(iterations + 1)
    return np.unique(np.concatenate([[0], np.geomspace(1, iterations, num=64).round().astype(np.int64)]))


def quantity(losses: np.ndarray, name: str) -> np.ndarray:
    """Return one column (n,) of `losses` (n, len(QUANTITIES))."""
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
