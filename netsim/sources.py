"""Where networks come from, in a line each. Without torch, so that `--help` need not wait for it."""

NETWORK_FORMS = {
    "torchvision": (
        "torchvision:NAME[@WEIGHTS|@none|@FILE]",
        "any of torchvision's classifiers, or wide_resnet50_4; WEIGHTS as in IMAGENET1K_V1",
    ),
    "timm": ("timm:NAME[@TAG|@none|@FILE]", "any of timm's classifiers; TAG as in a1_in1k"),
    "robust": ("robust:ARCH_NORM_epsE", "one of the robust ImageNet networks of Salman et al. 2020, once converted"),
    "robustness": (
        "robustness:DATASET:ARCH@FILE",
        "a network of the robustness library, from a converted checkpoint (or @none)",
    ),
    "small": ("small:NAME[@none|@FILE]", "one of nine small networks for 28x28 grey images, which a run trains"),
    "python": (
        "python:MODULE:FUNCTION[@FILE]",
        "what a function of yours returns: a classifier of images in [0, 1], or an AttackerModel",
    ),
}
"""How a reference is written, and what it names. none: random weights; FILE: safetensors, a path or a URL."""
