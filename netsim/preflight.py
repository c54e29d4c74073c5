"""What a sweep would trip over, found before it starts and costs anything."""

from netsim.config import SweepSettings
from netsim.images import ImageSet, load_images
from netsim.networks import Network, load_network, needs_download, needs_training, parse_reference, untrained
from netsim.pairs import draw_pairs
from netsim.stages import check_classes, used_splits


def check(settings: SweepSettings) -> None:
    """Raises SettingsError, NetworkError or DataError for networks and pairs that these settings can't have."""
    references = [settings.reference(name) for name in settings.names]
    for reference in references:
        parse_reference(reference)
    images = load_images(settings.images.source, "test", settings.images.size)
    draw_pairs(images.labels, settings.pairs.count, rng_seed=settings.pairs.rng_seed)
    if "train" in used_splits(settings):
        load_images(settings.images.source, "train", settings.images.size)
    for reference in references:
        check_classes(build(reference, images), images)


def build(reference: str, images: ImageSet) -> Network:
    """The network, which has looked at an image. Where weights are trained or downloaded later, they are random."""
    if needs_training(reference):
        return load_network(untrained(reference), num_classes=len(images.classes), input_shape=images.shape)
    return load_network(untrained(reference) if needs_download(reference) else reference, input_shape=images.shape)
