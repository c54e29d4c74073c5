"""docs/reference/store.md as code: names of sets and rows, paths and specifications of arrays, fixed point.

n = pairs, d = width of a representation, M = networks, G = shards, C H W = an image.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from netsim.store.arrays import ArraySpec
from netsim.store.run import Run
from netsim.store.sweeps import Sweep

NATURAL = "natural"
"""Name of the set of target images."""

SEED = "seed"
"""Name of the set of seed images."""

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

CONTROL_SUMS = ("natural_seed", "inverted_seed", "seen_seed", "seen_target", "seed", "adjusted", "adjusted_observer")
"""Sums of a cell of `control`; see `control_sides`."""

ROLES = ("seed", "target")
"""Images of a pair whose class an observer may predict."""

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


def sets(sweep: Sweep) -> list[str]:
    """List the sets of a sweep: `natural`, `seed` and `inverted/<through>`."""
    return [NATURAL, SEED, *(inverted(name) for name in sweep.names)]


def rows(sweep: Sweep) -> list[str]:
    """List the rows of both matrices: `natural/<network>` and `inverted/<through>`."""
    return [f"{NATURAL}/{name}" for name in sweep.names] + [inverted(name) for name in sweep.names]


def row_parts(row: str) -> tuple[str, str]:
    """Split a row into the set it is about and its network: `natural/vgg` -> `natural`, `vgg`."""
    kind, _, network = row.partition("/")
    return (NATURAL if kind == NATURAL else row), network


def cell(row: str, observer: str, identities: Mapping[str, str]) -> tuple[str, str]:
    """Return the model pair of a cell, as it is computed.

    That of an inverted row is (through, observer). That of a natural one is in the order of identities, whoever asked
    first: a pair and its mirror may differ in the last bit.
    """
    set_name, network = row_parts(row)
    if set_name != NATURAL:
        return network, observer
    first, second = sorted((network, observer), key=lambda name: (identities[name], name))
    return first, second


def row_pairs(row: str, observers: Iterable[str], identities: Mapping[str, str]) -> list[tuple[str, str]]:
    """List the model pairs whose sums are computed for the cells of some observers in a row, each once.

    Those of a natural row are the cells; each network with itself is a cell of its own row. An inverted row is a set of
    its own: through with every observer, and each observer with itself.
    """
    names = list(observers)
    cells = [cell(row, observer, identities) for observer in names]
    itself = [] if row_parts(row)[0] == NATURAL else [(observer, observer) for observer in names]
    return list(dict.fromkeys([*cells, *itself]))


Side = tuple[str, str]
"""One side of a sum of `control`: a set, and the network that looks at it."""


def adjusted(set_name: str) -> str:
    """Name the representations of a set without what the class of the seed explains: each minus its class's mean."""
    return f"{set_name} without seed class"


def control_sides(through: str, observer: str) -> dict[str, tuple[Side, Side]]:
    """Map each sum of a cell of `control` to its two sides.

    `natural_seed` and `inverted_seed` are of the seed-only control, an observer that sees nothing but seeds;
    `seen_seed` and `seen_target` are of the observer's views of an inverted image, of its seed and of its target;
    `adjusted` is the cell without what the class of the seed explains on both sides. The others are of one side with
    itself, where no unit of `aggregate` has them.
    """
    images = inverted(through)
    without = adjusted(images)
    return {
        "natural_seed": ((NATURAL, through), (SEED, observer)),
        "inverted_seed": ((images, through), (SEED, observer)),
        "seen_seed": ((images, observer), (SEED, observer)),
        "seen_target": ((images, observer), (NATURAL, observer)),
        "seed": ((SEED, observer), (SEED, observer)),
        "adjusted": ((without, through), (without, observer)),
        "adjusted_observer": ((without, observer), (without, observer)),
    }


# ---- units of several networks: those that looked, or were compared, together


def embed_unit(set_name: str, cohort: str) -> str:
    """Name the unit in which a cohort looks at a set."""
    return f"{set_name}/{cohort}"


def row_unit(row: str, cohort: str, shards: int) -> str:
    """Name the unit that compares a row's network with a cohort, over so many shards."""
    return f"{row}/{cohort}-{shards}"


@dataclass(frozen=True)
class RowUnit:
    """The parts of a `row_unit`."""

    row: str
    cohort: str
    shards: int

    @classmethod
    def parse(cls, name: str) -> Self:
        """Split the name of a unit. Raises ValueError if it is none."""
        row, _, last = name.rpartition("/")
        cohort, _, shards = last.partition("-")
        return cls(row, cohort, int(shards))


# ---- paths


def images_path(set_name: str) -> str:
    """Return the path of the images of a set."""
    return {NATURAL: "images/target", SEED: "images/seed"}.get(set_name, f"{set_name}/image")


def pair_groups(stage: str, unit: str) -> tuple[str, ...]:
    """Name the groups whose per-pair arrays a unit of a stage fills."""
    if stage == "draw":
        return "pairs", "images"
    if stage == "invert":
        return (inverted(unit),)
    return (f"representations/{unit.rpartition('/')[0]}",) if stage == "embed" else ()


def weights_path(name: str) -> str:
    """Return the path of the weights of a network trained here."""
    return f"weights/{name}.safetensors"


def checkpoint_path(name: str) -> str:
    """Return the path of the last epoch of a training that is not finished."""
    return f"training/{name}.checkpoint"


def digests_path(split: str) -> str:
    """Return the path of the hashes of the photographs of a split, uint64 little-endian, in the order of their list."""
    return f"checked/{split}.digests"


def representation_path(set_name: str, observer: str) -> str:
    """Return the path of an observer's representations of a set, an array (n, d)."""
    return f"representations/{set_name}/{observer}"


def moments_path(unit: str) -> str:
    """Return the path of the sums that a unit of `aggregate` computes."""
    return f"similarity/{unit}/moments"


def control_path(unit: str, kind: str) -> str:
    """Return the path of one of the arrays of a unit of `control`: moments, predicted or distance."""
    return f"controls/{unit}/{kind}"


def results_path(sweep: str, kind: str) -> str:
    """Return the path of one of the arrays of both matrices of a sweep, given its id."""
    return f"results/{sweep}/{kind}"


def converged_path(sweep: str) -> str:
    """Return the path of the inverted matrix of a sweep over converged images only, given its id."""
    return f"results/{sweep}/cka_unbiased_converged"


SUMMARY = "summary.txt"
"""File of a report with what the run says, in sentences: a run that finds nothing to do shows it."""


def report_path(sweep: str, file: str) -> str:
    """Return the path of a file of the report on a sweep, given its id."""
    return f"report/{sweep}/{file}"


# ---- arrays of the units of each stage


def draw_arrays(run: Run, _unit: str, network: Networks) -> list[ArraySpec]:
    """Specify indices, labels and images of the pairs."""
    n, shape = run.settings.pairs.count, network(run.sweep.names[0]).input_shape
    columns = [ArraySpec(f"pairs/{name}", (n,), "int64", ("pair",)) for name in PAIR_COLUMNS]
    return columns + [
        ArraySpec(f"images/{kind}", (n, *shape), "uint8", IMAGE_DIMS, attributes={"scale_factor": 1 / 255})
        for kind in ("seed", "target")
    ]


def invert_arrays(run: Run, unit: str, network: Networks) -> list[ArraySpec]:
    """Specify inverted images, their losses, and the history of losses."""
    n, shape = run.settings.pairs.count, network(unit).input_shape
    inversion, group = run.settings.inversion, inverted(unit)
    points = history_iterations(inversion.iterations)
    scale = {"scale_factor": 1 / IMAGE_STEPS} if inversion.stored_as == "uint16" else {}
    return [
        ArraySpec(f"{group}/image", (n, *shape), inversion.stored_as, IMAGE_DIMS, attributes=scale),
        ArraySpec(f"{group}/history", (n, len(points)), "float32", ("pair", "iteration"), {"iteration": points}),
        ArraySpec(f"{group}/losses", (n, len(QUANTITIES)), "float32", ("pair", "quantity"), {"quantity": QUANTITIES}),
    ]


def embed_arrays(run: Run, unit: str, network: Networks) -> list[ArraySpec]:
    """Specify the representations of a set by a cohort."""
    set_name, _, cohort = unit.rpartition("/")
    n = run.settings.pairs.count
    return [
        # the feature axis has its network's name: widths differ, and xarray wants one length per name
        ArraySpec(representation_path(set_name, name), (n, network(name).width), "float32", ("pair", f"feature_{name}"))
        for name in run.current(cohort)
    ]


def aggregate_arrays(unit: str, pairs: Sequence[tuple[str, str]]) -> list[ArraySpec]:
    """Specify the sums behind a row: over all shards, then with each shard left out."""
    return [
        ArraySpec(
            moments_path(unit),
            (len(pairs), len(MOMENTS), 1 + RowUnit.parse(unit).shards),
            "float64",
            ("model_pair", "moment", "left_out"),
            {"model_pair": [f"{first} {second}" for first, second in pairs], "moment": MOMENTS},
        )
    ]


def control_arrays(unit: str, pairs: Sequence[tuple[str, str]]) -> list[ArraySpec]:
    """Specify the sums of the cells of `control`, how often classes were predicted, and distances from targets."""
    labels = {"model_pair": [f"{first} {second}" for first, second in pairs]}
    count, shards = len(pairs), RowUnit.parse(unit).shards
    return [
        ArraySpec(
            control_path(unit, "moments"),
            (count, len(CONTROL_SUMS), len(MOMENTS), 1 + shards),
            "float64",
            ("model_pair", "sum", "moment", "left_out"),
            labels | {"sum": CONTROL_SUMS, "moment": MOMENTS},
        ),
        ArraySpec(
            control_path(unit, "predicted"),
            (count, len(ROLES), shards),
            "float64",
            ("model_pair", "role", "shard"),
            labels | {"role": ROLES},
        ),
        ArraySpec(control_path(unit, "distance"), (count, shards), "float64", ("model_pair", "shard"), labels),
    ]


def report_arrays(run: Run, unit: str, _network: Networks) -> list[ArraySpec]:
    """Specify both matrices, for readers that open the store without netsim."""
    through = run.settings.names
    observers = (*through, *(member.name for member in run.settings.observing))
    dims = {"set": ("natural", "inverted"), "through": through, "observer": observers}
    shape = (2, len(through), len(observers))
    matrices = [ArraySpec(results_path(unit, kind), shape, "float64", tuple(dims), dims) for kind in MATRICES]
    converged = (1 + run.sweep.shards, *shape[1:])
    axes = ("left_out", "through", "observer")
    return [*matrices, ArraySpec(converged_path(unit), converged, "float64", axes, dims)]


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
