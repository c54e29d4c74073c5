"""robust:NAME: the ImageNet networks of Salman et al. 2020 (https://arxiv.org/abs/2007.08489), trained to be robust.

Ten architectures, adversarially trained within a radius eps, in L2 or in Linf (eps in 255ths). They are published as
pickles; `netsim convert` makes safetensors of them once, which lie in the folder of weights.
"""

import os

import torch

from netsim.errors import SettingsError, nearest
from netsim.networks.preprocessing import IMAGENET
from netsim.networks.sources.base import Built, NetworkSource, Reference
from netsim.networks.sources.torchvision import untrained

HUB = "https://huggingface.co/madrylab/robust-imagenet-models/resolve/main/"
FOLDER = "NETSIM_WEIGHTS"  # names the folder of weights, or its URL

ARCHITECTURES = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "wide_resnet50_2": "wide_resnet50_2",
    "wide_resnet50_4": "wide_resnet50_4",
    "densenet": "densenet161",
    "mnasnet": "mnasnet1_0",
    "mobilenet": "mobilenet_v2",
    "resnext50_32x4d": "resnext50_32x4d",
    "shufflenet": "shufflenet_v2_x1_0",
    "vgg16_bn": "vgg16_bn",
}
"""As torchvision calls them."""

RESNETS = ("resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4")
L2 = ("0", "0.01", "0.03", "0.05", "0.1", "0.25", "0.5", "1", "3", "5")
LINF = ("0.5", "1.0", "2.0", "4.0", "8.0")

NAMES = {
    **{f"{name}_l2_eps{eps}": name for name in RESNETS for eps in L2},
    **{f"{name}_l2_eps{eps}": name for name in ARCHITECTURES if name not in RESNETS for eps in ("0", "3")},
    **{f"{name}_linf_eps{eps}": name for name in RESNETS[:3] for eps in LINF},
}
"""All that are published, spelled as their files are."""


def check(parsed: Reference) -> None:
    if parsed.name not in NAMES:
        raise SettingsError(f"no robust network {parsed.name!r}{nearest(parsed.name, NAMES)}")
    if parsed.weights is not None:
        architecture = ARCHITECTURES[NAMES[parsed.name]]
        raise SettingsError(
            f"robust:{parsed.name} is in {find_file(parsed)}, and takes no @; "
            f"for a file elsewhere write 'torchvision:{architecture}@FILE.safetensors'"
        )


def build(parsed: Reference, num_classes: int | None) -> Built:
    """`num_classes` is held against the file, which is filled in."""
    return Built(untrained(ARCHITECTURES[NAMES[parsed.name]], 1000), IMAGENET)


def find_file(parsed: Reference) -> str:
    return f"{weights_folder().rstrip('/')}/{parsed.name}.safetensors"


def weights_folder() -> str:
    """Unless it is named, where torchvision keeps its weights."""
    return os.environ.get(FOLDER) or os.path.join(torch.hub.get_dir(), "checkpoints")


def advice(parsed: Reference) -> str:
    return (
        f"`netsim convert robust:{parsed.name} [{parsed.name}.ckpt]` makes it, from {HUB}{parsed.name}.ckpt; "
        f"the variable {FOLDER} names another folder"
    )


SOURCE = NetworkSource(check, build, find_file=find_file, advice=advice)
