"""What a network expects of its images. Pixels are RGB in [0, 1] everywhere else, and netsim converts them inside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from netsim.errors import NetworkError

Shape = tuple[int, int, int]  # (C, H, W)
Channels = Sequence[float] | Tensor | None  # one value a channel; None: nothing is subtracted, or divided by

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """`mean` and `std` are per channel, in the network's own range and order: x -> (largest * x - mean) / std.

    A network for [-1, 1] has mean and std 0.5; one of Caffe's has largest=255 and order="BGR". `size`, `crop` and
    `interpolation` say how its publisher prepares photographs: the shorter side scaled to size / crop pixels, then the
    centre cropped. A run's images are prepared alike for all of its networks (its settings `images`), so these three
    are what it is held against.
    """

    mean: Channels = None
    std: Channels = None
    largest: float = 1.0  # the value of a white pixel
    order: Literal["RGB", "BGR"] = "RGB"
    size: int | None = None
    crop: float | None = None
    interpolation: str | None = None

    @property
    def shape(self) -> Shape:
        """Of an image as the network is made for; where it does not say, as ImageNet's."""
        size = 224 if self.size is None else self.size
        return 3 if self.mean is None else len(self.mean), size, size

    def on_unit_scale(self, like: Tensor, *, name: str) -> tuple[Tensor, Tensor]:
        """Mean and std (C, 1, 1) for pixels in [0, 1], in the dtype and the channels of the images `like`."""
        channels = like.shape[1]
        mean = [0.0] * channels if self.mean is None else self.mean
        std = [1.0] * channels if self.std is None else self.std
        if self.order == "BGR" and channels != 3:
            raise NetworkError(f"{name} reads BGR images, and these have {channels} channels")
        return self._per_channel(mean, like, name=name), self._per_channel(std, like, name=name)

    def _per_channel(self, values: Sequence[float] | Tensor, like: Tensor, *, name: str) -> Tensor:
        flat = (torch.as_tensor(values, dtype=torch.float64).detach() / self.largest).to(like, copy=True).flatten()
        if len(flat) != like.shape[1]:
            raise NetworkError(f"{name} reads images of {len(flat)} channels, and these have {like.shape[1]}")
        return flat.reshape(-1, 1, 1)

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        facts = {key: value for key, value in vars(self).items() if value is not None}
        return facts | {key: torch.as_tensor(facts[key]).flatten().tolist() for key in ("mean", "std") if key in facts}

    def with_file(self, facts: Mapping[str, Any]) -> Self:
        """The same with the mean and std that a converted file brings. Raises NetworkError for what are none."""
        if not {"mean", "std"} <= facts.keys():
            return self
        for key in ("mean", "std"):
            if not isinstance(facts[key], list) or not all(isinstance(value, int | float) for value in facts[key]):
                raise NetworkError(f"the file of weights says that {key} is {facts[key]!r}; a list of numbers fits")
        return replace(self, mean=tuple(facts["mean"]), std=tuple(facts["std"]))


IMAGENET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, size=224, crop=0.875, interpolation="bilinear")
