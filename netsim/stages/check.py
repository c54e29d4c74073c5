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
from netsim.stages.inputs import listed_images, used_splits
from netsim.stages.work import StageResult
from netsim.store.metadata import CheckedSplit, CheckMetadata, UnreadableImage
from netsim.store.run import Run

logger = logging.getLogger(__name__)

PROGRESS = 5000
"""Images between two lines of the log."""


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Decode every photograph that the run may use, once. Record which are unreadable or doubles, and a hash.

    Raises
    ------
    DataError
        If images are unreadable and `images.unreadable` is not `skip` (the message names and counts them), or too few
        different pictures are left.
    """
    settings = run.settings.images
    checked: dict[Split, tuple[ListedImages, Inspection]] = {}
    for split in used_splits(run.settings):
        images = listed_images(settings, split)
        assert isinstance(images, ListedImages)
        checked[split] = images, images.inspect(partial(_report_progress, split, len(images)))
    complaints = [
        images.describe_unreadable(result.unreadable, total=len(images))
        for images, result in checked.values()
        if result.unreadable
    ]
    if complaints and settings.unreadable == "stop":
        raise DataError(
            f"{'; '.join(complaints)}. Fix or delete them, or skip them in a new store with "
            "--set images.unreadable=skip"
        )
    for complaint in complaints:
        logger.warning("%s; skipped", complaint)
    test, result = checked["test"]
    for note in (*test.notes, *describe_doubles(result.pictures, test.labels, test.names)):
        logger.warning("%s", note)
    skipped = list(result.unreadable)
    readable, pictures = test.without(skipped), np.delete(result.pictures, skipped)
    draw_pairs(readable.labels, run.settings.pairs.count, pictures=pictures)
    return StageResult(metadata=CheckMetadata(**{split: _metadata(*images) for split, images in checked.items()}))


def _report_progress(split: Split, total: int, done: int) -> None:
    check_cancelled()
    if done % PROGRESS == 0:
        logger.info("%d of %d %s images checked", done, total, split)


def _metadata(images: ListedImages, result: Inspection) -> CheckedSplit:
    doubles = np.flatnonzero(result.pictures != np.arange(len(images))).tolist()
    return CheckedSplit(
        listed=len(images),
        listed_hash=images.content_hash(),
        unreadable=[UnreadableImage(index=i, name=images.names[i], why=why) for i, why in result.unreadable.items()],
        images_hash=images.without(list(result.unreadable)).content_hash(),
        doubles=[(double, int(result.pictures[double])) for double in doubles],
        passed_over=list(images.notes),
    )
