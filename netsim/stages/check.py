"""check: decode every image once, before anything is made of them."""

import logging
from functools import partial

import numpy as np

from netsim.cancellation import check_cancelled
from netsim.errors import DataError
from netsim.images import ListedImages, Split
from netsim.images.doubles import describe_doubles
from netsim.images.listed import Inspection
from netsim.images.pairs import draw_pairs
from netsim.stages.inputs import listed_images
from netsim.stages.work import StageResult
from netsim.store.layout import digests_path
from netsim.store.metadata import CheckMetadata, UnreadableImage
from netsim.store.run import Run

logger = logging.getLogger(__name__)

PROGRESS = 5000
"""Images between two lines of the log."""


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Decode every photograph of the split `name` once. Record which are unreadable or doubles, and hashes.

    Raises
    ------
    DataError
        If images are unreadable and `images.unreadable` is not `skip` (the message names and counts them), or too few
        different pictures are left.
    """
    settings = run.settings.images
    split: Split = "test" if name == "test" else "train"
    images = listed_images(settings, split)
    assert isinstance(images, ListedImages)
    result = images.inspect(partial(_report_progress, split, len(images)))
    if result.unreadable:
        complaint = images.describe_unreadable(result.unreadable, total=len(images))
        if settings.unreadable == "stop":
            raise DataError(f"{complaint}. Fix or delete them, or skip them with --set images.unreadable=skip")
        logger.warning("%s; skipped", complaint)
    if split == "test":
        for note in (*images.notes, *describe_doubles(result.pictures, images.labels, images.names)):
            logger.warning("%s", note)
        skipped = list(result.unreadable)
        readable, pictures = images.without(skipped), np.delete(result.pictures, skipped)
        pairs = run.sweep.given_settings.pairs
        draw_pairs(readable.labels, pairs.count, pictures=pictures, shard_size=pairs.shard_size)
    files = {digests_path(split): result.digests.astype("<u8").tobytes()} if split == "test" else {}
    return StageResult(files=files, metadata=_metadata(images, result))


def _report_progress(split: Split, total: int, done: int) -> None:
    check_cancelled()
    if done % PROGRESS == 0:
        logger.info("%d of %d %s images checked", done, total, split)


def _metadata(images: ListedImages, result: Inspection) -> CheckMetadata:
    doubles = np.flatnonzero(result.pictures != np.arange(len(images))).tolist()
    return CheckMetadata(
        listed=len(images),
        listed_hash=images.content_hash(),
        unreadable=[UnreadableImage(index=i, name=images.names[i], why=why) for i, why in result.unreadable.items()],
        images_hash=images.without(list(result.unreadable)).content_hash(),
        doubles=[(double, int(result.pictures[double])) for double in doubles],
        passed_over=list(images.notes),
    )
