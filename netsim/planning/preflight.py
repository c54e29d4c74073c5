"""What a sweep would trip over, found before it starts and costs anything."""

from netsim.images import ImageSet
from netsim.images.pairs import draw_pairs
from netsim.networks import Network, load_network, needs_download, needs_training, parse_reference, untrained
from netsim.settings import SweepSettings
from netsim.stages.inputs import check_classes, classes_of, used_images


def check(settings: SweepSettings) -> None:
    """Raises SettingsError, NetworkError or DataError for networks and pairs that these settings can't have."""
    references = [settings.reference(name) for name in settings.names]
    for reference in references:
        parse_reference(reference)
    sets = used_images(settings)
    images, classes = sets["test"], classes_of(sets.values())
    draw_pairs(images.labels, settings.pairs.count, rng_seed=settings.pairs.rng_seed)
    for reference in references:
        check_classes(build(reference, images, classes), images)


def build(reference: str, images: ImageSet, classes: int) -> Network:
    """The network, which has looked at an image.

    Where weights are trained, to tell so many `classes` apart, or downloaded later, they are random.
    """
    if needs_training(reference):
        return load_network(untrained(reference), num_classes=classes, input_shape=images.shape)
    return load_network(untrained(reference) if needs_download(reference) else reference, input_shape=images.shape)
