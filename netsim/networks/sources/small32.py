"""small32:NAME: the nine networks of `netsim.networks.sources.small` for 32x32 colour images, such as CIFAR-10's.

They have twice the channels, and images shrink by a factor of 2 only before the first block, so that blocks see 16x16
pixels.
"""

from functools import partial

from netsim.networks.sources.base import NetworkSource
from netsim.networks.sources.small import Scale, build, check

COLOUR = Scale(shape=(3, 32, 32), mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262), width=2, stride=1)
"""32x32 colour images. Means and standard deviations are those of CIFAR-10's 50,000 training images."""

SOURCE = NetworkSource(check, partial(build, COLOUR), trains=True)
