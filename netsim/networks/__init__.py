"""Networks by reference, cut at their last linear layer.

network        `Network`: images in [0, 1] -> representation -> logits
preprocessing  what a network expects of its images
references     `source:name[@weights]` -> Network; one module a source, from_*.py
weights        as safetensors, and their content hash
convert        pickled checkpoints -> safetensors, once (unpickle.py is the process that reads them)
"""

from netsim.networks.load import load_network, needs_download, needs_training, parse_reference, untrained
from netsim.networks.network import Network, as_network, sharing_copy
from netsim.networks.preprocessing import Preprocessing, Shape
from netsim.networks.weights import content_hash, load_weights, weights_to_bytes

__all__ = [
    "Network",
    "Preprocessing",
    "Shape",
    "as_network",
    "content_hash",
    "load_network",
    "load_weights",
    "needs_download",
    "needs_training",
    "parse_reference",
    "sharing_copy",
    "untrained",
    "weights_to_bytes",
]
