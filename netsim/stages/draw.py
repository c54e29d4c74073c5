"""draw: the pairs of a shard, with their images."""

from functools import lru_cache

import numpy as np

from netsim.images import ListedImages
from netsim.images.doubles import describe_doubles
from netsim.images.pairs import Pairs, SeedLabels, draw_pairs
from netsim.stages.inputs import (
    hash_of_test_images,
    images_changed_error,
    listed_images,
    pictures,
    read_test_images,
    readable_images,
)
from netsim.stages.work import StageResult
from netsim.store.layout import (
    PAIR_COLUMNS,
)
from netsim.store.metadata import DrawMetadata
from netsim.store.run import Run


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Draw a shard's pairs and store their images, so that no later stage needs the image source.

    Raises
    ------
    StoreError
        If the images are no longer those that the networks were trained or checked with.
    """
    images, size = readable_images(run, "test"), run.settings.pairs.shard_size
    if listed_images(run.settings.images, "test").content_hash() != run.protocol.images:
        raise images_changed_error(images)
    numbers = pictures(run)
    labels = images.labels.astype(np.int64)
    pairs, count = run.settings.pairs, max(shard + 1, run.sweep.shards) * size
    drawn = _all_pairs(labels.tobytes(), numbers.tobytes(), count, pairs.rng_seed, pairs.seed_labels, pairs.seed_draw)
    part = slice(shard * size, (shard + 1) * size)
    arrays = {f"pairs/{column}": getattr(drawn, column)[part] for column in PAIR_COLUMNS}
    arrays |= {
        "images/seed": read_test_images(run, drawn.seed[part]),
        "images/target": read_test_images(run, drawn.target[part]),
    }
    names = images.names if isinstance(images, ListedImages) else None
    seed_names, target_names = (
        None if names is None else [names[index] for index in indices[part]] for indices in (drawn.seed, drawn.target)
    )
    metadata = DrawMetadata(
        source=images.name,
        images_hash=hash_of_test_images(run),
        classes=list(images.classes),
        notes=describe_doubles(numbers, images.labels, names),
        seed_names=seed_names,
        target_names=target_names,
    )
    return StageResult(arrays, metadata=metadata)


@lru_cache(maxsize=1)
def _all_pairs(
    labels: bytes, numbers: bytes, count: int, rng_seed: int, seed_labels: SeedLabels, seed_draw: int
) -> Pairs:
    """Draw the pairs of all shards once per process: those of a late shard depend on the seeds of all before it."""
    of_images, of_pictures = (np.frombuffer(values, np.int64) for values in (labels, numbers))
    return draw_pairs(
        of_images, count, pictures=of_pictures, rng_seed=rng_seed, seed_labels=seed_labels, seed_draw=seed_draw
    )
