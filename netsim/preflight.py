"""What a sweep would trip over, found before it starts and costs anything."""

from netsim.config import SweepSettings
from netsim.images import ImageSet, load_images
from netsim.networks import load_network, needs_download, needs_training, parse_reference, untrained
from netsim.pairs import draw_pairs
from netsim.stages import check_classes


def check(settings: SweepSettings) -> None:
    """Raises SettingsError, NetworkError or DataError for networks and pairs that these settings can't have."""
    references = [settings.reference(name) for name in settings.names]
    for reference in references:
        parse_reference(reference)
    images = load_images(settings.images.source, "test", settings.images.size)
    draw_pairs(images.labels, settings.pairs.count, rng_seed=settings.pairs.rng_seed)
    if any(needs_training(reference) for reference in references):
        load_images(settings.images.source, "train", settings.images.size)
    for reference in references:
        _check_network(reference, images)


def _check_network(reference: str, images: ImageSet) -> None:
    """Build it, and have it look at an image. Weights that are downloaded wait until they are used."""
    if needs_training(reference):
        load_network(untrained(reference), num_classes=len(images.classes), input_shape=images.shape)
        return
    built = untrained(reference) if needs_download(reference) else reference
    check_classes(load_network(built, input_shape=images.shape), images)
