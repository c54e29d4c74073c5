"""draw: the pairs of a shard, with their images."""

from netsim.images import ListedImages
from netsim.images.doubles import describe_doubles
from netsim.images.pairs import draw_pairs
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
    images, pairs = readable_images(run, "test"), run.settings.pairs
    if train_metadata(run, run.settings.names[0]).images_hash != hash_of_test_images(run):
        raise images_changed_error(images)
    numbers = pictures(run)
    drawn = draw_pairs(
        images.labels, pairs.shard_size, pictures=numbers, rng_seed=pairs.rng_seed, start=shard * pairs.shard_size
    )
    arrays = {f"pairs/{column}": getattr(drawn, column) for column in PAIR_COLUMNS}
    arrays |= {"images/seed": images.read(drawn.seed), "images/target": images.read(drawn.target)}
    names = images.names if isinstance(images, ListedImages) else None
    metadata = DrawMetadata(
        source=images.name,
        images_hash=hash_of_test_images(run),
        classes=list(images.classes),
        notes=describe_doubles(numbers, images.labels, names),
    )
    return StageResult(arrays, metadata=metadata)
