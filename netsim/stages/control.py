"""control: what the cells of one row of the inverted matrix owe to the seeds, and what observers see in its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from netsim.similarity.streaming import pair_hsic
from netsim.stages import inputs
from netsim.stages.inputs import Represented
from netsim.stages.work import StageResult
from netsim.store.coverage import CONTROLS
from netsim.store.layout import (
    CONTROL_SUMS,
    MOMENTS,
    NATURAL,
    ROLES,
    SEED,
    RowUnit,
    Side,
    adjusted,
    control_path,
    control_sides,
    representation_path,
    row_parts,
)
from netsim.store.metadata import ControlMetadata, TrainMetadata
from netsim.store.provenance import made_from, weights_hash
from netsim.store.run import Run

KEPT_BYTES = 2**29
"""Representations of a unit that are kept in memory. Where they are more, they are read four times."""


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Compute the controls of a cohort in one row; see `netsim.store.layout.control_sides`.

    Raises
    ------
    StoreError
        If a shard of one of the sets is missing or damaged.
    """
    row = _Row(run, name)
    sides = [control_sides(*pair) for pair in row.pairs]
    wanted = list(dict.fromkeys(pair for each in sides for pair in each.values()))
    sums = pair_hsic([partial(row.read, shard) for shard in range(row.parts.shards)], wanted)
    arrays = {
        "moments": np.array(
            [[[getattr(sums[each[key]], moment) for moment in MOMENTS] for key in CONTROL_SUMS] for each in sides]
        ),
        "predicted": np.stack([row.predicted(observer) for _, observer in row.pairs]),
        "distance": np.stack([row.distance(observer) for _, observer in row.pairs]),
    }
    metadata = ControlMetadata(
        seed_classes=len(row.means.labels),
        weights={observer: weights_hash(run, observer) for _, observer in row.pairs if row.asked(observer)},
        made_from=made_from(run, ("control", name, shard), row.records),
    )
    return StageResult({control_path(name, kind): values for kind, values in arrays.items()}, metadata=metadata)


class _Row:
    """The representations that a unit needs, of three sets, and the classes of seeds and targets."""

    def __init__(self, run: Run, unit: str) -> None:
        self.run, self.parts, self.pairs = run, RowUnit.parse(unit), CONTROLS.of_unit(run, unit)
        self.images, through = row_parts(self.parts.row)
        self.names = tuple(dict.fromkeys([through, *(observer for _, observer in self.pairs)]))
        shards = range(self.parts.shards)
        self._looks = {
            each: Represented(run, each, self.names, self.parts.shards) for each in (NATURAL, SEED, self.images)
        }
        drawn = run.records_of(("draw", "pairs", shard) for shard in shards)
        self.labels = {
            role: [run.read(drawn["draw", "pairs", shard], f"pairs/{role}_label") for shard in shards] for role in ROLES
        }
        self.records = [*drawn.values(), *(record for each in self._looks.values() for record in each.records)]
        paths = [representation_path(set_name, name) for set_name in self._looks for name in self.names]
        widths = sum(run.array(path).shape[1] for path in paths)
        self._kept: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        self._keeps = 4 * run.settings.pairs.shard_size * self.parts.shards * widths <= KEPT_BYTES
        self.means = ClassMeans.over([partial(self._of, self.images, shard) for shard in shards], self.labels["seed"])

    def _of(self, set_name: str, shard: int) -> dict[str, np.ndarray]:
        """Read the representations of a shard of a set by all networks, from memory if all of them fit there."""
        if (set_name, shard) not in self._kept:
            values = self._looks[set_name].read(shard)
            if not self._keeps:
                return values
            self._kept[set_name, shard] = values
        return self._kept[set_name, shard]

    def _by(self, observer: str, set_name: str, shard: int) -> np.ndarray:
        """Read the representations of a shard of a set by one network likewise."""
        if self._keeps:
            return self._of(set_name, shard)[observer]
        return self._looks[set_name].read(shard, [observer])[observer]

    def read(self, shard: int) -> dict[Side, np.ndarray]:
        """Read every side of a shard."""
        values = {
            (set_name, name): rows for set_name in self._looks for name, rows in self._of(set_name, shard).items()
        }
        seeds = self.labels["seed"][shard]
        values |= {
            (adjusted(self.images), name): self.means.without(name, values[self.images, name], seeds)
            for name in self.names
        }
        return values

    def asked(self, observer: str) -> bool:
        """Return True if a network has one output for each class of the images."""
        return TrainMetadata.of(self.run.record("train", observer)).accuracy is not None

    def predicted(self, observer: str) -> np.ndarray:
        """Count the inverted images of each shard that a network takes for its seed's or target's class: (2, G)."""
        if not self.asked(observer):
            return np.full((len(ROLES), self.parts.shards), np.nan)
        counts = np.zeros((len(ROLES), self.parts.shards))
        for shard in range(self.parts.shards):
            rows = self._by(observer, self.images, shard)
            classes = inputs.logits(self.run, observer, rows).argmax(axis=1)
            counts[:, shard] = [(classes == self.labels[role][shard]).sum() for role in ROLES]
        return counts

    def distance(self, observer: str) -> np.ndarray:
        """Sum the squared distances of a network's representations of inverted images from those of targets: (G,)."""
        distances = []
        for shard in range(self.parts.shards):
            seen, target = (self._by(observer, each, shard).astype(np.float64) for each in (self.images, NATURAL))
            distances.append(np.square(seen - target).sum())
        return np.array(distances)


@dataclass(frozen=True)
class ClassMeans:
    """Mean representation of the images of each class, float64.

    Attributes
    ----------
    labels
        (K,), the classes that occur, in order.
    means
        Network -> (K, d).
    """

    labels: np.ndarray
    means: Mapping[str, np.ndarray]

    @classmethod
    def over(cls, shards: Sequence[partial[dict[str, np.ndarray]]], labels: Sequence[np.ndarray]) -> "ClassMeans":
        """Average over all shards, in their order."""
        classes, counts = np.unique(np.concatenate(labels), return_counts=True)
        sums: dict[str, np.ndarray] = {}
        for read, of_shard in zip(shards, labels, strict=True):
            place = np.searchsorted(classes, of_shard)
            for name, rows in read().items():
                total = sums.setdefault(name, np.zeros((len(classes), rows.shape[1])))
                np.add.at(total, place, rows.astype(np.float64))
        return cls(classes, {name: total / counts[:, None] for name, total in sums.items()})

    def without(self, name: str, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Subtract the mean of each row's class."""
        return rows.astype(np.float64) - self.means[name][np.searchsorted(self.labels, labels)]
