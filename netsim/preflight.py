"""What a sweep would trip over, found before it starts and costs anything."""

from netsim.config import SweepSettings
from netsim.datasets import load_images
from netsim.networks import parse_reference
from netsim.pairs import draw_pairs


def check(settings: SweepSettings) -> None:
    """Raises SettingsError, NetworkError or DataError for references that lead nowhere and pairs that can't be drawn."""
    for name in settings.names:
        parse_reference(settings.reference(name))
    images = load_images(settings.images.source, "test", settings.images.size)
    draw_pairs(images.labels, settings.pairs.count, rng_seed=settings.pairs.rng_seed)
