"""Measure how similar trained networks are, once features that merely co-occur in images are removed.

invert_images   images that a network represents like other images, for any classifier
linear_cka      similarity of two representations
load_network    a network by reference, as in "torchvision:resnet50"
Preprocessing   the input that a module expects, if it is not RGB in [0, 1]
draw_pairs      (seed, target) pairs whose labels differ
compare         the similarity of two networks in memory, on natural images and after inversion
run             a sweep, run or resumed and then opened
open_run        a finished sweep as labelled arrays, tables and figures
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

DISTRIBUTION = "netsim-cka"
"""Name of this package where packages are installed from."""

_HOMES = {
    "invert_images": "netsim.inversion.invert",
    "linear_cka": "netsim.similarity.cka",
    "load_network": "netsim.networks",
    "Preprocessing": "netsim.networks",
    "draw_pairs": "netsim.images.pairs",
    "compare": "netsim.in_memory",
    "run": "flows.cli.notebook",
    "open_run": "netsim.opened",
}

# imported when first used
__all__ = ["Preprocessing", "compare", "draw_pairs", "invert_images", "linear_cka", "load_network", "open_run", "run"]  # noqa: F822


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `netsim --help` does not wait for torch."""
    if name == "__version__":
        return version(DISTRIBUTION)
    if name not in _HOMES:
        raise AttributeError(f"module 'netsim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
