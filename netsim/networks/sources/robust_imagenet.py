"""robust:NAME: the robust ImageNet networks of Salman et al. 2020 (https://arxiv.org/abs/2007.08489).

Ten architectures, adversarially trained within a radius eps, in L2 or in Linf (eps in 255ths). They are published as
pickles; `netsim convert` converts them once to safetensors in the folder of weights.
"""

import os

import torch

from netsim.errors import SettingsError, nearest
from netsim.networks.preprocessing import IMAGENET
from netsim.networks.sources.base import Built, NetworkSource, Reference
from netsim.networks.sources.torchvision import untrained_model

HUB = "https://huggingface.co/madrylab/robust-imagenet-models/resolve/main/"

# Environment variable with the path or URL of the folder of weights.
FOLDER_VARIABLE = "NETSIM_WEIGHTS"

# Architectures in Salman et al.'s names, with torchvision's names for them.
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

RESNETS = ("resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4")
L2 = ("0", "0.01", "0.03", "0.05", "0.1", "0.25", "0.5", "1", "3", "5")
LINF = ("0.5", "1.0", "2.0", "4.0", "8.0")

# All published networks, spelled as their files are, with their architectures.
NAMES = {
    **{f"{name}_l2_eps{eps}": name for name in RESNETS for eps in L2},
    **{f"{name}_l2_eps{eps}": name for name in ARCHITECTURES if name not in RESNETS for eps in ("0", "3")},
    **{f"{name}_linf_eps{eps}": name for name in RESNETS[:3] for eps in LINF},
}


def check(parsed: Reference) -> None:
    """Raise SettingsError for a name that is not published, and for weights: the name determines the file."""
    if parsed.name not in NAMES:
        raise SettingsError(f"no robust network {parsed.name!r}{nearest(parsed.name, NAMES)}")
    if parsed.weights is not None:
        architecture = ARCHITECTURES[NAMES[parsed.name]]
        raise SettingsError(
            f"robust:{parsed.name} takes no @: its weights are in {find_file(parsed)}. "
            f"For another file, write 'torchvision:{architecture}@FILE'."
        )


def build(parsed: Reference, num_classes: int | None) -> Built:
    """Build the architecture with random weights, which its file replaces, and always 1000 classes."""
    return Built(untrained_model(ARCHITECTURES[NAMES[parsed.name]], 1000), IMAGENET)


def find_file(parsed: Reference) -> str:
    """Return the path or URL of the converted checkpoint."""
    return f"{weights_folder().rstrip('/')}/{parsed.name}.safetensors"


def weights_folder() -> str:
    """Return the folder of weights: NETSIM_WEIGHTS, or else the folder of torchvision's weights."""
    return os.environ.get(FOLDER_VARIABLE) or os.path.join(torch.hub.get_dir(), "checkpoints")


def hint(parsed: Reference) -> str:
    """Return the command that creates the file, for the end of an error message."""
    return (
        f"Create it from {HUB}{parsed.name}.ckpt with `netsim convert robust:{parsed.name} [{parsed.name}.ckpt]`, "
        f"or set {FOLDER_VARIABLE} to another folder."
    )


SOURCE = NetworkSource(check, build, find_file=find_file, hint=hint)
