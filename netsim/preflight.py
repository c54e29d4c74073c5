"""What a sweep would trip over, found before it starts and costs anything."""

from netsim.config import SweepSettings
from netsim.datasets import load_images
from netsim.networks import load_network, parse_reference
from netsim.pairs import draw_pairs


def check(settings: SweepSettings) -> None:
    """Raises SettingsError, NetworkError or DataError for references that lead nowhere or pairs that can't be."""
    references = [settings.reference(name) for name in settings.names]
    parsed = [parse_reference(reference) for reference in references]
    images = load_images(settings.images.source, "test", settings.images.size)
    for reference, parts in zip(references, parsed, strict=True):
        if parts.file is not None or parts.source == "python":  # the user's own: most likely not to fit
            load_network(reference, input_shape=images.shape)
    draw_pairs(images.labels, settings.pairs.count, rng_seed=settings.pairs.rng_seed)
