"""Find everything that would make a sweep fail, before it starts and costs anything."""

import logging

from netsim.images import ImageSet, ListedImages
from netsim.images.doubles import same_pictures
from netsim.images.pairs import draw_pairs
from netsim.networks import Network, load_network, needs_download, needs_training, parse_reference, untrained
from netsim.references import has_photographs
from netsim.settings import SweepSettings
from netsim.stages.inputs import count_classes, require_enough_classes, used_images

logger = logging.getLogger(__name__)


def preflight(settings: SweepSettings) -> None:
    """Check that the images, networks and pairs of these settings exist and fit together.

    Lists the images and builds every network, but neither trains nor downloads weights.

    Raises
    ------
    SettingsError
        For a reference, an image size or a number of pairs that is not possible.
    NetworkError
        For a network that cannot be used.
    DataError
        For images that cannot be used.
    """
    references = [settings.reference(name) for name in settings.names]
    for reference in references:
        parse_reference(reference)
    sets = used_images(settings)
    images, classes = sets["test"], count_classes(sets.values())
    for note in (note for listed in sets.values() if isinstance(listed, ListedImages) for note in listed.notes):
        logger.warning("%s", note)
    pictures = None if has_photographs(settings.images.source) else same_pictures(images)
    draw_pairs(images.labels, settings.pairs.count, pictures=pictures, rng_seed=settings.pairs.rng_seed)
    for reference in references:
        require_enough_classes(build_network(reference, images, classes), images)


def build_network(reference: str, images: ImageSet, classes: int) -> Network:
    """Build a network and run it on one image.

    Parameters
    ----------
    reference
        The network. Weights that would be trained or downloaded are random instead.
    images
        The images that the sweep represents.
    classes
        Number of outputs of a network that the sweep trains.
    """
    if needs_training(reference):
        return load_network(untrained(reference), num_classes=classes, input_shape=images.shape)
    return load_network(untrained(reference) if needs_download(reference) else reference, input_shape=images.shape)
