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


def compute(run: Run, name: str, shard: int) -> StageResult:
    """Decode every photograph that the run may use, once. Records which can't be read, and what there is without them.

    Raises DataError that names and counts those, unless `images.unreadable` is `skip`; or if too few are left.
    """
    settings = run.settings.images
    found: dict[Split, tuple[ListedImages, dict[int, str]]] = {}
    for split in used_splits(run.settings):
        images = listed_images(settings.source, split, settings.size)
        assert isinstance(images, ListedImages)
        found[split] = images, images.unreadable(partial(_say_progress, run, split, len(images)))
    complaints = [images.complain(faults, of=len(images)) for images, faults in found.values() if faults]
    if complaints and settings.unreadable == "stop":
        raise DataError(
            f"{'; '.join(complaints)}. Mend or remove them; or, in another --store, leave them out: "
            "--set images.unreadable=skip"
        )
    for complaint in complaints:
        logger.warning("%s; left out", complaint)
    test, faults = found["test"]
    draw_pairs(test.without(list(faults)).labels, run.settings.pairs.count)
    return StageResult(metadata=CheckMetadata(**{split: _checked(*checked) for split, checked in found.items()}))


def _say_progress(run: Run, split: Split, total: int, done: int) -> None:
    check_cancelled()
    if done % PROGRESS == 0:
        logger.info("%d of %d %s images looked at", done, total, split)


PROGRESS = 5000
"""Images between two lines of the log."""


def _checked(images: ListedImages, faults: Mapping[int, str]) -> CheckedSplit:
    return CheckedSplit(
        listed=len(images),
        listed_hash=images.content_hash(),
        unreadable=[UnreadableImage(index=i, name=images.names[i], why=why) for i, why in faults.items()],
        images_hash=images.without(list(faults)).content_hash(),
    )
