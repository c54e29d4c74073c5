"""check: decode every image once, before anything is made of them."""

import logging
from collections.abc import Mapping
from functools import partial

from netsim.cancellation import check_cancelled
from netsim.errors import DataError
from netsim.images import ListedImages, Split
from netsim.images.pairs import draw_pairs
from netsim.stages.inputs import listed_images, used_splits
from netsim.stages.work import StageResult
from netsim.store.metadata import CheckedSplit, CheckMetadata, UnreadableImage
from netsim.store.run import Run

logger = logging.getLogger(__name__)

PROGRESS = 5000
"""Images between two lines of the log."""


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Decode every photograph that the run may use, once. Record which are unreadable, and a hash of the others.

    Raises
    ------
    DataError
        If images are unreadable and `images.unreadable` is not `skip` (the message names and counts them), or too few
        are left.
    """
    settings = run.settings.images
    checked: dict[Split, tuple[ListedImages, dict[int, str]]] = {}
    for split in used_splits(run.settings):
        images = listed_images(settings.source, split, settings.size)
        assert isinstance(images, ListedImages)
        checked[split] = images, images.unreadable(partial(_report_progress, split, len(images)))
    complaints = [
        images.describe_unreadable(faults, total=len(images)) for images, faults in checked.values() if faults
    ]
    if complaints and settings.unreadable == "stop":
        raise DataError(
            f"{'; '.join(complaints)}. Fix or delete them, or skip them in a new store with "
            "--set images.unreadable=skip"
        )
    for complaint in complaints:
        logger.warning("%s; skipped", complaint)
    test, faults = checked["test"]
    draw_pairs(test.without(list(faults)).labels, run.settings.pairs.count)
    return StageResult(metadata=CheckMetadata(**{split: _metadata(*images) for split, images in checked.items()}))


def _report_progress(split: Split, total: int, done: int) -> None:
    check_cancelled()
    if done % PROGRESS == 0:
        logger.info("%d of %d %s images checked", done, total, split)


def _metadata(images: ListedImages, faults: Mapping[int, str]) -> CheckedSplit:
    return CheckedSplit(
        listed=len(images),
        listed_hash=images.content_hash(),
        unreadable=[UnreadableImage(index=i, name=images.names[i], why=why) for i, why in faults.items()],
        images_hash=images.without(list(faults)).content_hash(),
    )
