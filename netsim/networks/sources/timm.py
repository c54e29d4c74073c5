"""timm:NAME[@TAG]: any classifier of timm (https://github.com/huggingface/pytorch-image-models).

timm writes weights as `NAME.TAG`; netsim writes all weights after an @. timm keeps them in the cache of the Hugging
Face hub, as safetensors wherever they are published as such.
"""

import sys
from contextlib import redirect_stdout
from functools import cache
from typing import Any

import timm
from torch import nn

from netsim.errors import NetworkError, SettingsError, first_line, nearest
from netsim.networks.preprocessing import Preprocessing
from netsim.networks.sources.base import Built, NetworkSource, Reference
from netsim.networks.weights import no_code_in_pickles


@cache
def timm_names() -> frozenset[str]:
    """Return the names of all architectures."""
    return frozenset(timm.list_models())


def check(parsed: Reference) -> None:
    """Raise SettingsError for an unknown architecture or tag, and for a tag after a dot."""
    name, _, tag = parsed.name.partition(".")
    if tag:
        raise SettingsError(f"network 'timm:{parsed.name}' must have its weights after an @: write 'timm:{name}@{tag}'")
    if name not in timm_names():
        raise SettingsError(f"no timm network {name!r}{nearest(name, timm_names())}")
    _config(parsed)


def build(parsed: Reference, num_classes: int | None) -> Built:
    """Build the network with published weights, or with random ones, for 1000 classes by default.

    Raises
    ------
    SettingsError
        If `num_classes` differs from that of the published weights.
    NetworkError
        If they cannot be downloaded.
    """
    config = _config(parsed)
    preprocessing = _preprocessing(config)
    if not _is_published(parsed):
        classes = 1000 if num_classes is None else num_classes
        return Built(timm.create_model(parsed.name, pretrained=False, num_classes=classes), preprocessing)
    fixed = config.num_classes
    if num_classes not in (None, fixed):  # timm would draw another last layer
        raise SettingsError(
            f"num_classes must be {fixed} for the weights {config.tag} of {parsed.name}, got {num_classes}. "
            "Omit num_classes, or use random weights with @none."
        )
    return Built(_download(parsed, config), preprocessing)


def _is_published(parsed: Reference) -> bool:
    return parsed.weights != "none" and parsed.file is None


def _config(parsed: Reference) -> Any:
    """Return timm's configuration of the weights named, or else of its default ones, whose preprocessing is used."""
    default: Any = timm.models.get_pretrained_cfg(parsed.name)
    if not _is_published(parsed):
        return default
    tags = timm.models.get_arch_pretrained_cfgs(parsed.name)
    known = {name.partition(".")[2]: config for name, config in tags.items() if config.has_weights}
    tag = str(default.tag) if parsed.weights is None else parsed.weights
    if not known:
        raise SettingsError(f"timm has no weights for {parsed.name}: write @none or @FILE")
    if tag not in known:
        raise SettingsError(f"{parsed.name} has no weights {tag!r}{nearest(tag, [*known, 'none', 'FILE'])}")
    if known[tag].num_classes == 0:
        raise SettingsError(f"the weights {tag} of {parsed.name} have no classes: their last layer is missing")
    return known[tag]


def tag(parsed: Reference) -> str:
    """Return the tag of the published weights, as in a1_in1k."""
    return str(_config(parsed).tag)


def _preprocessing(config: Any) -> Preprocessing:
    return Preprocessing(
        tuple(config.mean),
        tuple(config.std),
        size=config.input_size[-1],
        crop=config.crop_pct,
        interpolation=config.interpolation,
    )


def _download(parsed: Reference, config: Any) -> nn.Module:
    """Load weights by timm's own loader, which looks into the hub's cache first."""
    name = f"{parsed.name}.{config.tag}" if config.tag else parsed.name
    try:
        with no_code_in_pickles(), redirect_stdout(sys.stderr):
            return timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client raises errors of many classes
        repository = config.hf_hub_id or config.url
        raise NetworkError(
            f"cannot download the weights {config.tag} of {parsed.name} ({first_line(error)}).\n"
            f"Run `hf download {repository}` on a machine with internet access and copy its cache (HF_HOME, or else "
            "~/.cache/huggingface), name a file with @FILE, or use random weights with @none."
        ) from error


SOURCE = NetworkSource(check, build, publishes=True, tag=tag)
