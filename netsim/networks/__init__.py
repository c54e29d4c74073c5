"""Networks by reference, cut in front of their last linear layer.

network        `Network`: images in [0, 1] -> representation -> logits
gate           the conditions that a network must meet to be inverted
behaviour      what a network makes of two fixed images, to tell apart networks of equal weights
ambient        independence of what the caller has set in torch
preprocessing  what a network expects of its images
wrappers       the classifier inside DataParallel, torch.compile and AttackerModel
load           references, `source:name[@weights]`, and the networks they name
sources        one module for each source of networks
weights        safetensors files, and the content hash of weights
training       training, resumable after every epoch
convert        one-time conversion of pickled checkpoints to safetensors (unpickle.py is the process that reads them)
"""

from netsim.networks.behaviour import behaviour_of, coarse_behaviour, same_behaviour
from netsim.networks.load import load_network, load_once, needs_download, needs_training, parse_reference, untrained
from netsim.networks.network import Network, as_network, sharing_copy
from netsim.networks.preprocessing import Preprocessing, Shape
from netsim.networks.weights import content_hash, load_weights, weights_to_bytes

__all__ = [
    "Network",
    "Preprocessing",
    "Shape",
    "as_network",
    "behaviour_of",
    "coarse_behaviour",
    "content_hash",
    "load_network",
    "load_once",
    "load_weights",
    "needs_download",
    "needs_training",
    "parse_reference",
    "same_behaviour",
    "sharing_copy",
    "untrained",
    "weights_to_bytes",
]
