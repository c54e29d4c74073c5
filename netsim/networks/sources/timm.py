"""timm:NAME[@TAG]: any classifier of timm (https://github.com/huggingface/pytorch-image-models).

timm itself names weights `NAME.TAG`; here, as everywhere, weights stand behind an @. It keeps them in the cache of the
Hugging Face hub, in safetensors wherever there are any.
"""

import sys
from contextlib import redirect_stdout
from functools import cache
from typing import Any

import timm
from torch import nn

from netsim.errors import NetworkError, SettingsError, nearest
from netsim.networks.network import first_line
from netsim.networks.preprocessing import Preprocessing
from netsim.networks.sources.base import Built, NetworkSource, Reference
from netsim.networks.weights import no_code_in_pickles


@cache
def timm_names() -> frozenset[str]:
    return frozenset(timm.list_models())


def check(parsed: Reference) -> None:
    name, _, tag = parsed.name.partition(".")
    if tag:
        raise SettingsError(f"network 'timm:{parsed.name}': netsim writes weights behind an @, 'timm:{name}@{tag}'")
    if name not in timm_names():
        raise SettingsError(f"no timm network {name!r}{nearest(name, timm_names())}")
    _config(parsed)


def build(parsed: Reference, num_classes: int | None) -> Built:
    config = _config(parsed)
    preprocessing = _preprocessing(config)
    if not _is_published(parsed):
        classes = 1000 if num_classes is None else num_classes
        return Built(timm.create_model(parsed.name, pretrained=False, num_classes=classes), preprocessing)
    fixed = config.num_classes
    if num_classes not in (None, fixed):  # timm would draw another last layer
        raise SettingsError(
            f"the weights {config.tag} of {parsed.name} have {fixed} classes, not {num_classes}; "
            "leave num_classes out, or start from @none"
        )
    return Built(_download(parsed, config), preprocessing)


def _is_published(parsed: Reference) -> bool:
    return parsed.weights != "none" and parsed.file is None


def _config(parsed: Reference) -> Any:
    """Of the weights that are named, else of the default ones: their preprocessing holds for @none and files too."""
    default: Any = timm.models.get_pretrained_cfg(parsed.name)
    if not _is_published(parsed):
        return default
    tags = timm.models.get_arch_pretrained_cfgs(parsed.name)
    known = {name.partition(".")[2]: config for name, config in tags.items() if config.has_weights}
    tag = str(default.tag) if parsed.weights is None else parsed.weights
    if not known:
        raise SettingsError(f"timm has no weights for {parsed.name}: write @none or @FILE.safetensors")
    if tag not in known:
        raise SettingsError(f"{parsed.name} has no weights {tag!r}{nearest(tag, [*known, 'none', 'FILE.safetensors'])}")
    if known[tag].num_classes == 0:
        raise SettingsError(f"the weights {tag} of {parsed.name} tell no classes apart: they have no last layer")
    return known[tag]


def _preprocessing(config: Any) -> Preprocessing:
    return Preprocessing(
        tuple(config.mean),
        tuple(config.std),
        size=config.input_size[-1],
        crop=config.crop_pct,
        interpolation=config.interpolation,
    )


def _download(parsed: Reference, config: Any) -> nn.Module:
    """By timm's own loader, which looks into the hub's cache first."""
    named = f"{parsed.name}.{config.tag}" if config.tag else parsed.name
    try:
        with no_code_in_pickles(), redirect_stdout(sys.stderr):
            return timm.create_model(named, pretrained=True)
    except Exception as error:  # the hub's client has errors of many kinds
        where = config.hf_hub_id or config.url
        raise NetworkError(
            f"cannot get the weights {config.tag} of {parsed.name} ({first_line(error)}).\n"
            f"`hf download {where}`, where there is a network, puts them into a folder that can be copied "
            "(HF_HOME, or else ~/.cache/huggingface); or name a file with @FILE.safetensors, or use random weights "
            "with @none"
        ) from error


SOURCE = NetworkSource(check, build, publishes=True)
