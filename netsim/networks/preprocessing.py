"""Preprocessing that a network expects of its images.

Everywhere else in netsim, pixels are RGB in [0, 1]. A `Network` converts them inside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from netsim.errors import NetworkError
from netsim.networks.ambient import plain_numbers

Shape = tuple[int, int, int]  # (C, H, W)
Channels = Sequence[float] | Tensor | None  # one value per channel; None: nothing is subtracted, or nothing divided by


@dataclass(frozen=True)
class Preprocessing:
    """Range, channel order, normalisation and image size that a network was trained with.

    A network receives ``(largest * x - mean) / std`` of an image ``x`` in [0, 1], with the channels in `order`. The
    default is the identity: RGB in [0, 1]. Assign one to the attribute ``preprocessing`` of a module that expects
    anything else.

    Parameters
    ----------
    mean, std : sequence of float or Tensor, optional
        One value per channel, in the network's own range and channel order. Without `mean` nothing is subtracted;
        without `std` nothing is divided by.
    largest : float, default 1.0
        Value of a white pixel in the network's own range, as in 255 for Caffe's networks.
    order : {"RGB", "BGR"}, default "RGB"
        Order of the channels. "BGR" requires images of 3 channels.
    size : int, optional
        Height and width, in pixels, of the images the network is made for. Other sizes are used if the network accepts
        them, and results then say so.
    crop : float, optional
        Fraction, in (0, 1], that a centre crop keeps of the shorter side: the publisher scales that side to
        ``size / crop`` pixels, then crops `size`. Recorded in a run's metadata, never applied: the images of a run are
        prepared alike for all of its networks.
    interpolation : str, optional
        Name of the publisher's interpolation, as in "bicubic". Recorded in a run's metadata, never applied.

    Raises
    ------
    NetworkError
        For values that are no finite numbers, a `std` or `largest` of zero, and another `order`. When a network is made
        with it: for images with another number of channels than `mean`, `std` or "BGR" requires.

    See Also
    --------
    load_network : Networks by reference, which come with their preprocessing.

    Examples
    --------
    A network of images in [-1, 1]:

    >>> from netsim import Preprocessing
    >>> centred = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)

    A network of Caffe: blue first, white is 255, and the mean is subtracted.

    >>> caffe = Preprocessing(mean=(104, 117, 123), largest=255, order="BGR", size=224)
    >>> caffe.shape
    (3, 224, 224)
    """

    mean: Channels = None
    std: Channels = None
    largest: float = 1.0
    order: Literal["RGB", "BGR"] = "RGB"
    size: int | None = None
    crop: float | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        if self.order not in ("RGB", "BGR"):
            raise NetworkError(f"order of a Preprocessing must be RGB or BGR, got {self.order!r}")
        for key, may_be_zero in (("mean", True), ("std", False), ("largest", False)):
            value = getattr(self, key)
            if value is not None and not _are_numbers(value, may_be_zero=may_be_zero):
                must = "finite numbers" if may_be_zero else "finite numbers other than 0"
                raise NetworkError(f"{key} of a Preprocessing must be {must}, got {value!r}")

    @property
    def shape(self) -> Shape:
        """Shape (C, H, W) of the images the network is made for; ImageNet's, (3, 224, 224), where nothing is stated."""
        size = 224 if self.size is None else self.size
        return 3 if self.mean is None else len(self.mean), size, size

    @property
    def states_shape(self) -> bool:
        """True if both the size and the number of channels are stated."""
        return self.size is not None and self.mean is not None

    def on_unit_scale(self, like: Tensor, *, name: str) -> tuple[Tensor, Tensor]:
        """Return mean and std, each (C, 1, 1), that normalise pixels in [0, 1].

        Parameters
        ----------
        like
            Images (n, C, H, W), whose device, dtype and number of channels the result has.
        name
            The network's name, for error messages.

        Raises
        ------
        NetworkError
            If the images have another number of channels than `mean`, `std` or "BGR" requires.
        """
        channels = like.shape[1]
        mean = [0.0] * channels if self.mean is None else self.mean
        std = [1.0] * channels if self.std is None else self.std
        if self.order == "BGR" and channels != 3:
            raise NetworkError(f"{name} requires BGR images of 3 channels, got {channels}")
        return self._per_channel(mean, like, name=name), self._per_channel(std, like, name=name)

    def _per_channel(self, values: Sequence[float] | Tensor, like: Tensor, *, name: str) -> Tensor:
        flat = (torch.as_tensor(values, dtype=torch.float64).detach() / self.largest).to(like, copy=True).flatten()
        if len(flat) != like.shape[1]:
            raise NetworkError(f"{name} requires images of {len(flat)} channels, got {like.shape[1]}")
        return flat.reshape(-1, 1, 1)

    @plain_numbers()
    def to_json(self) -> dict[str, Any]:
        """Convert to a dict for JSON, without the fields that are None."""
        fields = {key: value for key, value in vars(self).items() if value is not None}
        return fields | {
            key: torch.as_tensor(fields[key]).flatten().tolist() for key in ("mean", "std") if key in fields
        }

    def with_metadata(self, metadata: Mapping[str, Any]) -> Self:
        """Return a copy with the mean and std in the metadata of a converted file, if it has both.

        Raises
        ------
        NetworkError
            If one of the two is not a list of numbers.
        """
        if not {"mean", "std"} <= metadata.keys():
            return self
        for key in ("mean", "std"):
            values = metadata[key]
            if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
                raise NetworkError(f"{key} in the metadata of the weights must be a list of numbers, got {values!r}")
        return replace(self, mean=tuple(metadata["mean"]), std=tuple(metadata["std"]))


def _are_numbers(values: Any, *, may_be_zero: bool) -> bool:
    try:
        numbers = torch.as_tensor(values, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False
    return bool(torch.isfinite(numbers).all()) and (may_be_zero or bool((numbers != 0).all()))


# Preprocessing of most ImageNet networks.
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), size=224, crop=0.875, interpolation="bilinear")
