"""Find everything that would make a sweep fail, before it starts and costs anything."""

import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial

from netsim.errors import NetsimError
from netsim.images import ImageSet, ListedImages, load_images
from netsim.images.doubles import same_pictures
from netsim.images.pairs import draw_pairs
from netsim.networks import Network, load_network, load_once, needs_download, needs_training, parse_reference, untrained
from netsim.planning.resolve import raise_faults
from netsim.references import has_photographs
from netsim.settings import ImageSettings, Member
from netsim.stages.inputs import count_classes, require_matching, splits_of, used_images
from netsim.store.sweeps import StoredNetwork, Sweep

logger = logging.getLogger(__name__)


def preflight(sweep: Sweep, names: Collection[str] | None = None, *, download: bool = False) -> None:
    """Check that the images, networks and pairs of a sweep exist and fit together.

    Lists the images and builds networks, but does not train them.

    Parameters
    ----------
    sweep
        The sweep.
    names
        Networks to check, by their names in the store; all by default.
    download
        Download published weights, too, unless they are cached: for workers that use the same cache, which then neither
        download them at the same time nor learn one after another that they cannot.

    Raises
    ------
    SettingsError
        For a reference, an image size or a number of pairs that is not possible.
    NetworkError
        For networks that cannot be used or downloaded; the message has all of them.
    DataError
        For images that cannot be used.
    """
    settings = sweep.settings
    chosen = {name: sweep.network(name) for name in (sweep.columns if names is None else names)}
    _require_each(parse_reference, chosen)
    sets = used_images(settings)
    images, classes = sets["test"], count_classes(sets.values())
    for note in (note for listed in sets.values() if isinstance(listed, ListedImages) for note in listed.notes):
        logger.warning("%s", note)
    pictures = None if has_photographs(settings.images.source) else same_pictures(images)
    pairs = settings.pairs
    draw_pairs(images.labels, pairs.count, pictures=pictures, rng_seed=pairs.rng_seed, shard_size=pairs.shard_size)
    _require_each(partial(_check_network, images=images, classes=classes, download=download), chosen)


def _require_each(check: Callable[[str], object], networks: Mapping[str, StoredNetwork]) -> None:
    """Check every reference by name, and raise one error with the faults of all."""
    faults: dict[str, NetsimError] = {}
    for name, network in networks.items():
        try:
            check(network.reference)
        except NetsimError as error:
            faults[name] = error
    raise_faults(faults, total=len(networks))


def fault_of(member: Member, images: ImageSettings) -> NetsimError | None:
    """Return what is wrong with a network, by itself; None for a sound one, or if its images are at fault."""
    try:
        splits = splits_of(trained=member.training is not None)
        sets = [load_images(images.source, split, images.size, images.class_order) for split in splits]
    except NetsimError:
        return None
    try:
        parse_reference(member.reference)
        _check_network(member.reference, sets[0], count_classes(sets))
    except NetsimError as error:
        return error
    return None


def _check_network(reference: str, images: ImageSet, classes: int, *, download: bool = False) -> None:
    # resolving the sweep has called a function twice, and compared the networks
    require_matching(build_network(reference, images, classes, load=load_once, download=download), images)


def build_network(
    reference: str,
    images: ImageSet,
    classes: int,
    *,
    load: Callable[..., Network] = load_network,
    download: bool = False,
) -> Network:
    """Build a network and check it on two images.

    Parameters
    ----------
    reference
        The network. Weights that a run would train are random instead, and by default those that it would download.
    images
        The images that the sweep represents.
    classes
        Number of outputs of a network that the sweep trains.
    load
        `load_network`, or `load_once` to call a function of the user's only once.
    download
        Download weights.
    """
    if needs_training(reference):
        return load(untrained(reference), num_classes=classes, input_shape=images.shape)
    random = needs_download(reference) and not download
    return load(untrained(reference) if random else reference, input_shape=images.shape)
