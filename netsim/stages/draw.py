"""draw: the pairs of a shard, with their images."""

from functools import lru_cache

import numpy as np

from netsim.images import ListedImages
from netsim.images.doubles import describe_doubles
from netsim.images.pairs import Pairs, draw_pairs
from netsim.settings import PairSettings
from netsim.stages.inputs import hash_of_test_images, images_changed_error, pictures, readable_images
from netsim.stages.work import StageResult
from netsim.store.layout import (
    PAIR_COLUMNS,
)
from netsim.store.metadata import DrawMetadata, train_metadata
from netsim.store.run import Run


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Draw a shard's pairs and store their images, so that no later stage needs the image source.

    Raises
    ------
    StoreError
        If the images are no longer those that the networks were trained or checked with.
    """
    images, size = readable_images(run, "test"), run.settings.pairs.shard_size
    if train_metadata(run, run.settings.names[0]).images_hash != hash_of_test_images(run):
        raise images_changed_error(images)
    numbers = pictures(run)
    labels = images.labels.astype(np.int64)
    drawn = _all_pairs(labels.tobytes(), numbers.tobytes(), run.settings.pairs)
    part = slice(shard * size, (shard + 1) * size)
    arrays = {f"pairs/{column}": getattr(drawn, column)[part] for column in PAIR_COLUMNS}
    arrays |= {"images/seed": images.read(drawn.seed[part]), "images/target": images.read(drawn.target[part])}
    names = images.names if isinstance(images, ListedImages) else None
    metadata = DrawMetadata(
        source=images.name,
        images_hash=hash_of_test_images(run),
        classes=list(images.classes),
        notes=describe_doubles(numbers, images.labels, names),
    )
    return StageResult(arrays, metadata=metadata)


@lru_cache(maxsize=1)
def _all_pairs(labels: bytes, numbers: bytes, settings: PairSettings) -> Pairs:
    """Draw the pairs of all shards once per process: those of a late shard depend on the seeds of all before it."""
    of_images, of_pictures = (np.frombuffer(values, np.int64) for values in (labels, numbers))
    return draw_pairs(of_images, settings.count, pictures=of_pictures, rng_seed=settings.rng_seed)
