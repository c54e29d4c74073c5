"""Training of networks that come without weights. It resumes after any epoch, to the same bits.

Stochastic gradient descent with momentum, a one-cycle learning rate (rising to its peak in the first quarter, then
falling to zero along a cosine: Smith and Topin 2017, https://arxiv.org/abs/1708.07120), and random mirroring and moving
of images. Robust networks are trained on the images that an attack makes of these (`netsim.networks.adversarial`).
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from netsim.errors import DataError, NetworkError, SettingsError
from netsim.images import ArrayImages, ImageSet, to_unit
from netsim.networks import Network
from netsim.networks.adversarial import attack
from netsim.networks.ambient import plain_torch
from netsim.networks.batches import evaluation_batches
from netsim.settings import AdversarialSettings, TrainingPrecision

# Momentum of gradient descent (Nesterov's).
MOMENTUM = 0.9

# Images that are read at a time where nothing else sets the number.
READ_AT_ONCE = 250

# Training images of up to this many bytes are decoded once, and held in memory: CIFAR-10's are 154 MB.
HELD_BYTES = 2**29

# Fraction of all steps in which the learning rate rises.
WARM_UP = 0.25

# Part of the side of an image that it may be moved by: 4 pixels of 32, as usual for CIFAR.
MOVED = 1 / 8

# Callback after every epoch: number of epochs done, mean loss of the last one, state to resume from.
OnEpoch = Callable[[int, float, bytes], None]

Logits = Callable[[Tensor], Tensor]


@plain_torch()
def train_epochs(
    network: Network,
    images: ImageSet,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    rng_seed: int,
    augmentation: str = "mirror",
    adversarial: AdversarialSettings | None = None,
    precision: TrainingPrecision = "float32",
    state: bytes | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Train `network` in place to classify `images`, and leave it in evaluation mode.

    Order, changes of the images and dropout of an epoch are functions of (rng_seed, epoch). So a training that resumes
    from a `state` ends with the same bits as one that was never interrupted (on a CPU, with the same number of
    threads). At the end of an epoch, images that do not fill a batch are dropped: small batches disturb BatchNorm.

    `weight_decay` acts on every parameter, including BatchNorm's gains, and determines how fast a small network is
    inverted: without it the representation varies too sharply with the image. Measured on the small ResNet-50, trained
    as in the demo, with 64 pairs and 250 iterations: median relative loss 0.100 for 5e-4, 0.067 for 3e-3, 0.025 for
    1e-2; accuracy 0.85 each.

    Parameters
    ----------
    epochs
        Number of epochs, including those that `state` has behind it.
    batch_size
        Images per step; all images if there are fewer.
    learning_rate
        Peak of the one-cycle learning rate.
    augmentation
        "none", "mirror" (left to right, every other image) or "crop": also moved by up to `MOVED` of the side, with
        black where the image does not reach.
    adversarial
        Attack whose images the network learns from instead; it attacks the network as it is then, in evaluation mode.
    precision
        What convolutions and products are computed in; "bfloat16" by torch's autocast. Weights, their updates and the
        loss are in float32 in either.
    state
        State that `on_epoch` received; training resumes from it.
    on_epoch
        Called after every epoch with the number of epochs done, the mean loss of the last one, and the state.
    on_step
        Called after every step, and before it now and then while images are decoded; an exception that it raises ends
        the training.

    Raises
    ------
    DataError
        If the images have more classes than the network.
    NetworkError
        If the loss is not finite.
    SettingsError
        If `state` belongs to another network.
    """
    _check_labels(network, images)
    device = network.mean.device
    batch_size = min(batch_size, len(images))
    steps = len(images) // batch_size
    images = _held(images, on_step)
    optimizer = _optimizer(network, weight_decay=weight_decay)
    epochs_done = 0 if state is None else _restore(state, network, optimizer)
    logits = network if precision == "float32" else partial(_autocast_logits, network, torch.bfloat16)
    try:
        for epoch in range(epochs_done, epochs):
            network.train()
            rng = np.random.default_rng([rng_seed, epoch])
            order = rng.permutation(len(images))[: steps * batch_size].reshape(steps, batch_size)
            total = 0.0
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(int(rng.integers(2**63)))  # for dropout
                starts = torch.Generator().manual_seed(int(rng.integers(2**63))) if adversarial else None
                for step, batch in enumerate(order):
                    _set_learning_rate(optimizer, learning_rate * one_cycle((epoch * steps + step) / (epochs * steps)))
                    pixels = to_unit(augmented(images.read(batch), augmentation, rng)).to(device)
                    labels = torch.from_numpy(images.labels[batch]).to(device)
                    if adversarial is not None:
                        network.eval()
                        pixels = attack(logits, pixels, labels, adversarial, generator=starts)
                        network.train()
                    total += _step(logits, optimizer, pixels, labels)
                    on_step()
            if not math.isfinite(total):
                raise NetworkError(f"training {network.name} diverged in epoch {epoch + 1}. Lower the learning rate.")
            if on_epoch is not None:
                on_epoch(epoch + 1, total / steps, _state(network, optimizer, epochs_done=epoch + 1))
    finally:
        network.eval().requires_grad_(False).zero_grad()


def _held(images: ImageSet, on_read: Callable[[], None]) -> ImageSet:
    """Decode the images of a small set once instead of in every epoch."""
    at_hand = isinstance(images, ArrayImages) and images.pixels.shape[1:] == images.shape
    if at_hand or len(images) * math.prod(images.shape) > HELD_BYTES:
        return images
    pixels = np.empty((len(images), *images.shape), dtype=np.uint8)
    for start in range(0, len(images), READ_AT_ONCE):
        rows = np.arange(start, min(start + READ_AT_ONCE, len(images)))
        pixels[rows] = images.read(rows)
        on_read()
    return ArrayImages(images.name, pixels, images.labels, images.classes)


def one_cycle(progress: float) -> float:
    """Return the learning rate at `progress` in [0, 1), as a fraction of its peak."""
    if progress < WARM_UP:
        return (progress + 0.02) / (WARM_UP + 0.02)  # from 0, the first step would change nothing
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def accuracy(network: Network, images: ImageSet) -> float:
    """Compute the fraction of `images` classified correctly, in [0, 1].

    Raises
    ------
    DataError
        If the images have more classes than the network.
    NetworkError
        If a logit is not finite.
    """
    return float((predict(network, images) == images.labels).mean())


@plain_torch()
def predict(network: Network, images: ImageSet) -> np.ndarray:
    """Predict the labels of images: (n,) int64. Raises as `accuracy` does."""
    _check_labels(network, images)
    predicted = []
    for start in range(0, len(images), READ_AT_ONCE):
        pixels = to_unit(images.read(np.arange(start, min(start + READ_AT_ONCE, len(images)))))
        logits = evaluation_batches(network, pixels).evaluate(network, pixels)
        if not torch.isfinite(logits).all():
            raise NetworkError(f"logits of {network.name} must be finite, got NaN or infinity")
        predicted.append(logits.argmax(dim=1).cpu().numpy())
    return np.concatenate(predicted)


def _optimizer(network: Network, *, weight_decay: float) -> torch.optim.SGD:
    """Create the optimizer. BatchNorm's gains decay too, unlike in many recipes: see `train_epochs`."""
    network.requires_grad_(True)
    return torch.optim.SGD(network.parameters(), lr=0.0, momentum=MOMENTUM, weight_decay=weight_decay, nesterov=True)


def _set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _autocast_logits(network: Network, dtype: torch.dtype, pixels: Tensor) -> Tensor:
    """Compute the logits in lower precision; `Network.forward` never does."""
    with torch.autocast(pixels.device.type, dtype):
        return network.head(network.body(network.normalised(pixels))).float()


def _step(logits: Logits, optimizer: torch.optim.Optimizer, pixels: Tensor, labels: Tensor) -> float:
    loss = nn.functional.cross_entropy(logits(pixels), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def augmented(images: np.ndarray, augmentation: str, rng: np.random.Generator) -> np.ndarray:
    """Change images (n, C, H, W) at random, as `augmentation` of `train_epochs` says."""
    if augmentation == "none":
        return images
    mirror = rng.random(len(images)) < 0.5
    images = np.where(mirror[:, None, None, None], images[..., ::-1], images)
    return _moved(images, rng) if augmentation == "crop" else images


def _moved(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move each of the images (n, C, H, W) by up to `MOVED` of its side, down or up and right or left."""
    *_, height, width = images.shape
    most = [max(1, round(MOVED * side)) for side in (height, width)]
    padded = np.pad(images, [(0, 0), (0, 0), *((by, by) for by in most)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    down, right = (rng.integers(2 * by + 1, size=len(images)) for by in most)
    return windows[np.arange(len(images)), :, down, right]


def _check_labels(network: Network, images: ImageSet) -> None:
    if len(images.classes) > network.num_classes:
        raise DataError(
            f"{network.name} must have an output for each of the {len(images.classes)} classes of {images.name}, "
            f"got {network.num_classes}. Load it with more classes."
        )


# ---- the state between two epochs: weights, BatchNorm's statistics, momentum, and the number of epochs done


def _state(network: Network, optimizer: torch.optim.Optimizer, *, epochs_done: int) -> bytes:
    tensors = {f"weights/{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {
        f"momentum/{name}": optimizer.state[p]["momentum_buffer"] for name, p in _with_momentum(network, optimizer)
    }
    tensors["epochs_done"] = torch.tensor(epochs_done)
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _restore(state: bytes, network: Network, optimizer: torch.optim.Optimizer) -> int:
    """Restore network and optimizer; return the number of epochs done."""
    tensors = safetensors.torch.load(state)
    try:
        network.load_state_dict(_under("weights/", tensors))
    except RuntimeError as error:
        raise SettingsError(f"the training state must be of {network.name}, got another network: {error}") from error
    momentum = _under("momentum/", tensors)
    for name, parameter in network.named_parameters():
        if name in momentum:
            optimizer.state[parameter]["momentum_buffer"] = momentum[name].to(parameter.device)
    return int(tensors["epochs_done"])


def _with_momentum(network: Network, optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that have momentum: all that take part in the forward pass."""
    return [
        (name, p) for name, p in network.named_parameters() if optimizer.state[p].get("momentum_buffer") is not None
    ]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
