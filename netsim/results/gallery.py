"""Example pairs for the report: seed, target, and the image inverted through each network."""

from dataclasses import dataclass

import numpy as np

from netsim.storage.concurrency import concurrently
from netsim.store import layout
from netsim.store.layout import inverted as inverted_set
from netsim.store.metadata import DrawMetadata
from netsim.store.run import Run


@dataclass(frozen=True)
class Gallery:
    """Images of k pairs, each (k, C, H, W).

    Attributes
    ----------
    pairs
        Indices of the pairs in the run (k,).
    seed, target
        Pixels as uint8.
    inverted
        Network inverted through -> pixels as floats in [0, 1].
    seed_labels, target_labels
        Class names of both images.
    """

    pairs: np.ndarray
    seed: np.ndarray
    target: np.ndarray
    inverted: dict[str, np.ndarray]
    seed_labels: list[str]
    target_labels: list[str]


def gallery(run: Run, *, rows: int = 8) -> Gallery:
    """Read the images of the first pair of each target class in the first shard, at most `rows` pairs.

    Raises
    ------
    StoreError
        If one of the arrays is missing or damaged.
    """
    names, shown = run.sweep.names, run.settings.names
    records = run.records_of([("draw", "pairs", 0), *(("invert", name, 0) for name in names)])
    draw = records["draw", "pairs", 0]
    columns = ("pairs/target_label", "pairs/seed_label", "images/seed", "images/target")
    labels, seed_labels, seed, target = run.read_some(draw, columns).values()
    chosen = np.sort(np.unique(labels, return_index=True)[1])[:rows]
    classes = DrawMetadata.of(draw).classes

    def pixels(name: str) -> np.ndarray:
        return layout.from_stored(run.read(records["invert", name, 0], f"{inverted_set(name)}/image")[chosen])

    by_name = dict(zip(names, concurrently(pixels, names), strict=True))
    return Gallery(
        pairs=chosen,
        seed=seed[chosen],
        target=target[chosen],
        inverted={name: by_name[run.sweep.shown[name]] for name in shown},
        seed_labels=[classes[label] for label in seed_labels[chosen]],
        target_labels=[classes[label] for label in labels[chosen]],
    )
