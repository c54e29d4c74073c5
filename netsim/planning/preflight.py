"""Find everything that would make a sweep fail, before it starts and costs anything."""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from netsim.errors import NetsimError, NetworkError
from netsim.images import ImageSet, ListedImages
from netsim.images.doubles import same_pictures
from netsim.images.pairs import draw_pairs
from netsim.networks import Network, load_network, needs_download, needs_training, parse_reference, untrained
from netsim.references import has_photographs
from netsim.settings import SweepSettings
from netsim.stages.inputs import count_classes, require_matching, used_images

logger = logging.getLogger(__name__)


def preflight(settings: SweepSettings) -> None:
    """Check that the images, networks and pairs of these settings exist and fit together.

    Lists the images and builds every network, but neither trains nor downloads weights.

    Raises
    ------
    SettingsError
        For a reference, an image size or a number of pairs that is not possible.
    NetworkError
        For networks that cannot be used; the message has all of them.
    DataError
        For images that cannot be used.
    """
    references = {name: settings.reference(name) for name in settings.names}
    _require_each(parse_reference, references)
    sets = used_images(settings)
    images, classes = sets["test"], count_classes(sets.values())
    for note in (note for listed in sets.values() if isinstance(listed, ListedImages) for note in listed.notes):
        logger.warning("%s", note)
    pictures = None if has_photographs(settings.images.source) else same_pictures(images)
    draw_pairs(images.labels, settings.pairs.count, pictures=pictures, rng_seed=settings.pairs.rng_seed)
    _require_each(partial(_check_network, images=images, classes=classes), references)


def _require_each(check: Callable[[str], object], references: Mapping[str, str]) -> None:
    """Check every reference by name, and raise one error with the faults of all."""
    faults: dict[str, NetsimError] = {}
    for name, reference in references.items():
        try:
            check(reference)
        except NetsimError as error:
            faults[name] = error
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        kinds = {type(error) for error in faults.values()}
        lines = [f"{name}: {error}" for name, error in faults.items()]
        kind = kinds.pop() if len(kinds) == 1 else NetworkError
        raise kind("\n  ".join([f"{len(faults)} of {len(references)} networks cannot be used:", *lines]))


def _check_network(reference: str, images: ImageSet, classes: int) -> None:
    require_matching(build_network(reference, images, classes), images)


def build_network(
    reference: str, images: ImageSet, classes: int, *, load: Callable[..., Network] = load_network
) -> Network:
    """Build a network and check it on two images.

    Parameters
    ----------
    reference
        The network. Weights that would be trained or downloaded are random instead.
    images
        The images that the sweep represents.
    classes
        Number of outputs of a network that the sweep trains.
    load
        `load_network`, or `load_once` to call a function of the user's only once.
    """
    if needs_training(reference):
        return load(untrained(reference), num_classes=classes, input_shape=images.shape)
    return load(untrained(reference) if needs_download(reference) else reference, input_shape=images.shape)
