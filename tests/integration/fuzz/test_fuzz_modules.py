"""Networks of random pieces: those that can be inverted are cut where they should be; of others, the fault is named."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from netsim.errors import NetworkError
from netsim.inversion.invert import invert_batches
from netsim.networks import Network, as_network
from netsim.settings import InversionSettings
from support.fuzz import inputs, outcome

WIDTH, SIDE, CLASSES = 4, 8, 3

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Does(nn.Module):
    """A layer made of a function of the layer and its input."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.register_buffer(name, layer) if isinstance(layer, Tensor) else setattr(self, name, layer)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def conv(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, **{"kernel_size": 3, "padding": 1} | options)


def used(norm: nn.Module) -> nn.Module:
    """A norm that has seen images."""
    norm.train()
    for _ in range(3):
        norm(torch.rand(8, WIDTH, SIDE, SIDE))
    return norm


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def untokens(z: Tensor, x: Tensor) -> Tensor:
    return z.transpose(1, 2).reshape(x.shape)


# Layers of feature maps (n, WIDTH, H, W), of any H and W, that can be inverted.
FINE: dict[str, Callable[[], nn.Module]] = {
    "convolution": conv,
    "pointwise": lambda: conv(kernel_size=1, padding=0),
    "depthwise": lambda: conv(groups=WIDTH, bias=False),
    "dilated": lambda: conv(dilation=2, padding=2, padding_mode="reflect"),
    "strided": lambda: conv(stride=2),
    "transposed": lambda: nn.ConvTranspose2d(WIDTH, WIDTH, 2, stride=2),
    "BatchNorm": lambda: used(nn.BatchNorm2d(WIDTH)),
    "convolution and BatchNorm": lambda: nn.Sequential(
        conv(bias=False), used(nn.BatchNorm2d(WIDTH)), nn.ReLU(inplace=True)
    ),
    "momentum BatchNorm": lambda: used(nn.BatchNorm2d(WIDTH, momentum=None, affine=False)),
    "GroupNorm": lambda: nn.GroupNorm(2, WIDTH),
    "InstanceNorm": lambda: Does(lambda self, x: x + self.norm(x), norm=nn.InstanceNorm2d(WIDTH)),
    "channels-last LayerNorm": lambda: Does(
        lambda self, x: self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(WIDTH)
    ),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(2),
    "ReLU": lambda: nn.ReLU(),
    "ReLU in place": lambda: Does(lambda self, x: F.relu_(x + 0)),
    "GELU": lambda: nn.GELU(),
    "SiLU": lambda: nn.SiLU(),
    "PReLU": lambda: nn.PReLU(WIDTH),
    "ELU": lambda: nn.ELU(),
    "sigmoid gate": lambda: Does(lambda self, x: x * torch.sigmoid(self.gate(x)), gate=conv()),
    "squeeze and excite": lambda: Does(
        lambda self, x: x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid(), gate=nn.Conv2d(WIDTH, WIDTH, 1)
    ),
    "residual": lambda: Does(lambda self, x: x + self.inner(x), inner=nn.Sequential(conv(), nn.ReLU(), conv())),
    "residual in place": lambda: Does(lambda self, x: self.inner(x).add_(x).relu_(), inner=conv()),
    "dense": lambda: Does(
        lambda self, x: self.mix(torch.cat([x, self.inner(x)], 1)), inner=conv(), mix=nn.Conv2d(2 * WIDTH, WIDTH, 1)
    ),
    "shared twice": lambda: Does(lambda self, x: self.inner(self.inner(x).tanh()), inner=conv()),
    "shuffle": lambda: Does(
        lambda self, x: x.view(len(x), 2, WIDTH // 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
    ),
    "permuted": lambda: Does(lambda self, x: x.permute(0, 2, 3, 1).flip(-1).permute(0, 3, 1, 2)),
    "interpolated": lambda: Does(lambda self, x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "maximum": lambda: nn.MaxPool2d(3, 1, 1),
    "average": lambda: nn.AvgPool2d(3, 1, 1),
    "dropout": lambda: nn.Dropout(0.5),
    "dropout of maps": lambda: nn.Dropout2d(0.5),
    "functional dropout": lambda: Does(lambda self, x: F.dropout(x, 0.5, self.training)),
    "attention": lambda: Does(
        lambda self, x: x + untokens(self.heads(*[tokens(x)] * 3, need_weights=False)[0], x),
        heads=nn.MultiheadAttention(WIDTH, 2, batch_first=True),
    ),
    "attention of channels": lambda: Does(
        lambda self, x: x + (torch.softmax(x.flatten(2) @ tokens(x) / 8, dim=-1) @ x.flatten(2)).reshape(x.shape)
    ),
    "attention, tokens first": lambda: Does(
        lambda self, x: x + untokens(self.heads(*[tokens(x).transpose(0, 1)] * 3)[0].transpose(0, 1), x),
        heads=nn.MultiheadAttention(WIDTH, 2),
    ),
    "transformer": lambda: Does(
        lambda self, x: untokens(self.layer(tokens(x)), x),
        layer=nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True),
    ),
    "linear on tokens": lambda: Does(lambda self, x: untokens(self.inner(tokens(x)), x), inner=nn.Linear(WIDTH, WIDTH)),
    "recurrent": lambda: Does(
        lambda self, x: x + untokens(self.cell(tokens(x))[0], x), cell=nn.GRU(WIDTH, WIDTH, batch_first=True)
    ),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(conv()),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(conv()),
    "checkpointed": lambda: Does(lambda self, x: checkpoint(self.inner, x, use_reentrant=False), inner=conv()),
    "einsum": lambda: Does(
        lambda self, x: torch.einsum("nchw,cd->ndhw", x, self.matrix), matrix=torch.rand(WIDTH, WIDTH)
    ),
    "Fourier": lambda: Does(lambda self, x: x + torch.fft.rfft2(x).abs().mean((2, 3), keepdim=True)),
    "a loop over images": lambda: Does(lambda self, x: torch.cat([self.inner(one[None]) for one in x]), inner=conv()),
    "its range": lambda: Does(
        lambda self, x: (x - x.amin((1, 2, 3), keepdim=True)) / (1 + x.amax((1, 2, 3), keepdim=True))
    ),
    "a cache": lambda: Does(
        lambda self, x: (self.register_buffer("cache", torch.ones(()), persistent=False), x * self.cache)[1]
    ),
    "a rewritten buffer": lambda: Does(lambda self, x: (self.seen.fill_(0), x)[1], seen=torch.zeros(())),
    "unused noise": lambda: Does(lambda self, x: (torch.rand(3), x)[1]),
    "half inside": lambda: Does(lambda self, x: x + 0 * x.bfloat16().float()),
    "hooked": lambda: _hooked(conv()),
    "identity": lambda: nn.Identity(),
}


def _hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, args, output: output * 2)
    return layer


BATCH = "must represent each image by itself, whatever else is in the batch, got "
RANDOM = "must be deterministic: two forward passes of the same images must give the same logits"
SLOPE = "must be differentiable with respect to images by torch.autograd.grad, got "
STATE = "a forward pass of net must not change its weights or buffers in evaluation mode, got changes of "

# Layers that cannot be inverted, with what is said of them. All but the last also work on vectors.
FAULTS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "the mean of the batch": (lambda: Does(lambda self, x: x - x.mean(0)), BATCH),
    "the range of the batch": (lambda: Does(lambda self, x: (x - x.min()) / (x.max() - x.min())), BATCH),
    "the largest of the batch": (lambda: Does(lambda self, x: x / x.abs().amax(0)), BATCH),
    "softmax over the batch": (lambda: Does(lambda self, x: x.softmax(0)), BATCH),
    "mixed": (lambda: Does(lambda self, x: 0.7 * x + 0.3 * x.roll(1, 0)), BATCH),
    "reversed": (lambda: Does(lambda self, x: x + x.flip(0)), BATCH),
    "sums over the batch": (lambda: Does(lambda self, x: x.cumsum(0)), BATCH),
    "sums over the rest of the batch": (lambda: Does(lambda self, x: x.flip(0).cumsum(0).flip(0)), BATCH),
    "numbered": (lambda: Does(lambda self, x: x + torch.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1))), BATCH),
    "as many": (lambda: Does(lambda self, x: x * len(x)), BATCH),
    "squeezed": (lambda: Does(lambda self, x: x[0][None] if len(x) == 1 and x.ndim < 3 else x - x.mean(0)), BATCH),
    "noise": (lambda: Does(lambda self, x: x + torch.randn_like(x)), RANDOM),
    "dropout left on": (lambda: Does(lambda self, x: F.dropout(x, 0.5, training=True) + torch.rand(())), RANDOM),
    "a random scale": (lambda: Does(lambda self, x: x * torch.rand(())), RANDOM),
    "a random order": (lambda: Does(lambda self, x: x + x[:, torch.randperm(x.shape[1])] * torch.rand(())), RANDOM),
    "counted in Python": (lambda: Does(_count), RANDOM),
    "counted in a buffer": (lambda: Does(lambda self, x: (self.seen.add_(1), x)[1], seen=torch.zeros(())), STATE),
    "a moving mean": (lambda: Does(_move, mean=torch.zeros(())), STATE),
    "a decaying weight": (lambda: Does(_decay, scale=nn.Parameter(torch.ones(()))), STATE),
    "detached": (lambda: Does(lambda self, x: x.detach()), SLOPE + "no gradient"),
    "no_grad": (lambda: Does(torch.no_grad()(lambda self, x: x * 2)), SLOPE + "no gradient"),
    "inference mode": (lambda: Does(torch.inference_mode()(lambda self, x: x * 2)), SLOPE + "no gradient"),
    "a new tensor": (lambda: Does(lambda self, x: torch.tensor(x.tolist(), dtype=x.dtype)), SLOPE + "no gradient"),
    "numpy": (lambda: Does(lambda self, x: torch.from_numpy(x.numpy())), SLOPE + "RuntimeError"),
    "re-entrant": (
        lambda: Does(lambda self, x: checkpoint(torch.tanh, x, use_reentrant=True)),
        SLOPE + "a re-entrant checkpoint",
    ),
    "rounded": (lambda: Does(lambda self, x: (1000 * x).round()), SLOPE + "a gradient of zero everywhere"),
    "ordered": (lambda: Does(lambda self, x: (1e4 * x).long().to(x.dtype)), SLOPE),
    "in place": (
        lambda: Does(lambda self, x: F.silu(x.relu(), inplace=True)),
        SLOPE + "an in-place change of a value that the gradient needs",
    ),
    "infinite slope": (
        lambda: Does(lambda self, x: x + (0 * x).sqrt()),
        "the gradient of net with respect to images must be finite",
    ),
    "NaN": (lambda: Does(lambda self, x: x + torch.log(-1 - x * x)), "of net must be finite for images in [0, 1]"),
    "infinity": (lambda: Does(lambda self, x: x / 0.0), "of net must be finite for images in [0, 1]"),
    "by gradient mode": (
        lambda: Does(lambda self, x: x * (2 if torch.is_grad_enabled() else 1)),
        "must represent images alike with and without gradients",
    ),
    "fails": (
        lambda: Does(lambda self, x: x @ torch.ones(77, 1)),
        "net cannot read images of shape (3, 8, 8) (RuntimeError",
    ),
    "ends the process": (
        lambda: Does(lambda self, x: raise_(SystemExit(0))),
        "net cannot read images of shape (3, 8, 8) (SystemExit",
    ),
    "a tuple": (lambda: Does(lambda self, x: (x, x)), "net cannot read images of shape"),
    "never evaluated": (lambda: _always_training(), "net must be in evaluation mode after eval()"),
    "half weights": (lambda: Does(lambda self, x: x, layer=nn.Linear(1, 1).half()), "must be float32 or float64, got "),
    "no values": (
        lambda: Does(lambda self, x: x, layer=nn.Linear(1, 1, device="meta")),
        "must have values for all of its weights",
    ),
    "lazy": (lambda: Does(lambda self, x: x, layer=nn.LazyLinear(1)), "must have values for all of its weights"),
    "two dtypes": (lambda: _of_two_dtypes(), "must have one dtype, got "),
    "live BatchNorm": (lambda: nn.BatchNorm2d(WIDTH, track_running_stats=False), BATCH),
}
ON_MAPS_ONLY = ("live BatchNorm",)


def raise_(error: BaseException) -> Any:
    raise error


def _count(self: Any, x: Tensor) -> Tensor:
    self.passes = getattr(self, "passes", 0) + 1
    return x * self.passes


def _move(self: Any, x: Tensor) -> Tensor:
    self.mean = 0.9 * self.mean + 0.1 * x.mean()
    return x - self.mean


def _decay(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        self.scale.mul_(0.9)
    return x * self.scale


def _always_training() -> nn.Module:
    layer = nn.Dropout(0.5)
    layer.train = lambda mode=True: nn.Module.train(layer, True)  # type: ignore[method-assign]
    return layer


def _of_two_dtypes() -> nn.Module:
    return Does(lambda self, x: x, one=nn.Linear(1, 1).double(), other=nn.Linear(1, 1))


NO_CUT = "must return the output of its last nn.Linear"
NO_LINEAR = "net must end in an nn.Linear, got a network that runs none"
LINEAR_INSIDE = ("linear on tokens", "transformer")

# The last part: from a vector to logits. None: it can be cut.
HEADS: dict[str, str | None] = {
    "linear": None,
    "without bias": None,
    "hidden layers": None,
    "two names": None,
    "an auxiliary head before": None,
    "one vector of a sequence": None,
    "keyword": None,
    "changed in place afterwards": NO_CUT,
    "softmax": NO_CUT,
    "two heads averaged": NO_CUT,
    "an auxiliary head after": NO_CUT,
    "tied to the layer before": NO_CUT,
    "mean over tokens": None,
    "scaled": NO_CUT,
    "convolution": NO_LINEAR,
    "functional": NO_LINEAR,
    "a tuple of logits": "net must return a tensor of logits, got tuple",
    "a dict of logits": "net must return a tensor of logits, got dict",
}


class Net(nn.Module):
    """Pieces, one after another. Each image is added to the last maps, so that no piece before can hide it."""

    def __init__(self, pieces: list[str], fault: str | None, on_vector: bool, head: str, pooled: int) -> None:
        super().__init__()
        self.stem, self.skip = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(3, WIDTH, 1)
        self.pieces = nn.Sequential(*(FINE[piece]() for piece in pieces))
        layer = FAULTS[fault][0]() if fault else nn.Identity()
        self.on_maps, self.on_vector = (nn.Identity(), layer) if on_vector else (layer, nn.Identity())
        self.pooled, self.head = pooled, head
        width = WIDTH * pooled**2
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, CLASSES, bias=head != "without bias")
        self.extra = nn.Linear(width, width if head == "tied to the layer before" else CLASSES)
        if head == "two names":
            self.classifier = self.out

    def forward(self, x: Tensor) -> Any:
        maps = self.pieces(self.stem(x))
        maps = self.on_maps(maps + F.adaptive_avg_pool2d(self.skip(x), maps.shape[2:]))
        z = self.on_vector(F.adaptive_avg_pool2d(maps, self.pooled).flatten(1))
        return getattr(self, f"_{self.head.replace(' ', '_')}", self._linear)(z)

    def _linear(self, z: Tensor) -> Any:
        return self.out(z)

    def _hidden_layers(self, z: Tensor) -> Any:
        return self.out(z + F.gelu(self.hidden(z)))

    def _an_auxiliary_head_before(self, z: Tensor) -> Any:
        self.extra(z)
        return self.out(z)

    def _one_vector_of_a_sequence(self, z: Tensor) -> Any:
        return self.out(torch.stack([z, -z], dim=1)[:, 0])

    def _keyword(self, z: Tensor) -> Any:
        return self.out(input=z)

    def _changed_in_place_afterwards(self, z: Tensor) -> Any:
        return self.out(z).add_(1)

    def _softmax(self, z: Tensor) -> Any:
        return self.out(z).softmax(-1)

    def _two_heads_averaged(self, z: Tensor) -> Any:
        return (self.out(z) + self.extra(z)) / 2

    def _an_auxiliary_head_after(self, z: Tensor) -> Any:
        logits = self.out(z)
        self.extra(z)
        return logits

    def _tied_to_the_layer_before(self, z: Tensor) -> Any:
        return self.extra(self.extra(z).tanh())

    def _mean_over_tokens(self, z: Tensor) -> Any:
        return self.out(torch.stack([z, 2 * z], dim=1)).mean(1)

    def _scaled(self, z: Tensor) -> Any:
        return 10 * self.out(z)

    def _convolution(self, z: Tensor) -> Any:
        return F.conv1d(z[:, :, None], self.out.weight[:, :, None])[..., 0]

    def _functional(self, z: Tensor) -> Any:
        return F.linear(z, self.out.weight)

    def _a_tuple_of_logits(self, z: Tensor) -> Any:
        return self.out(z), z

    def _a_dict_of_logits(self, z: Tensor) -> Any:
        return {"logits": self.out(z)}


@dataclass(frozen=True)
class Made:
    """A network of pieces, with faults, and what is to be said of them."""

    pieces: tuple[str, ...]
    fault: str | None
    on_vector: bool
    head: str
    pooled: int
    wrapper: str
    double: bool
    rng_seed: int

    def model(self) -> nn.Module:
        """Build it, in its wrapper."""
        torch.manual_seed(self.rng_seed)
        net: nn.Module = Net(list(self.pieces), self.fault, self.on_vector, self.head, self.pooled)
        net = (
            net.double()
            if self.double and self.fault not in ("half weights", "no values", "two dtypes", "lazy")
            else net
        )
        return {"none": net, "DataParallel": nn.DataParallel(net), "Sequential": nn.Sequential(net)}[self.wrapper]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and images."""
        return torch.float64 if self.double else torch.float32

    @property
    def verdicts(self) -> list[str]:
        """Parts of messages, one of which must be in the error; empty for a network that can be inverted."""
        verdict = FAULTS[self.fault][1] if self.fault else HEADS[self.head]
        if verdict == NO_LINEAR and any(piece in LINEAR_INSIDE for piece in self.pieces):
            return [NO_CUT]
        return [] if verdict is None else [verdict]


@st.composite
def networks(draw: st.DrawFn) -> Made:
    fault = draw(st.sampled_from([None] * len(FAULTS) + list(FAULTS)))
    fine_heads = [name for name, verdict in HEADS.items() if verdict is None]
    return Made(
        pieces=tuple(draw(st.lists(st.sampled_from(sorted(FINE)), max_size=3))),
        fault=fault,
        on_vector=draw(st.booleans()) and fault not in ON_MAPS_ONLY,
        head=draw(st.sampled_from(fine_heads if fault else [*fine_heads * 2, *HEADS])),
        pooled=draw(st.sampled_from([1, 2])),
        wrapper=draw(st.sampled_from(["none", "none", "DataParallel", "Sequential"])),
        double=draw(st.sampled_from([False, False, True])),
        rng_seed=draw(st.sampled_from(range(20))),
    )


def check_cut(network: Network, model: nn.Module, images: Tensor) -> None:
    """Compare a network with the classifier that it was cut from, and with itself on single images."""
    tolerance = 1e-4 if images.dtype == torch.float32 else 1e-9
    with torch.no_grad():
        represented, logits = network.represent(images), model.eval()(images)
        singly = torch.cat([network.represent(image[None]) for image in images])
    for result, expected in ((network.head(represented), logits), (network(images), logits), (singly, represented)):
        torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def check_inversion(network: Network, images: Tensor) -> None:
    """Invert for two iterations: the best image is no worse than the seed, and is an image."""
    inversion = invert_batches(network, images[:2], images[2:], InversionSettings(iterations=2))
    assert inversion.images.min() >= 0 and inversion.images.max() <= 1 and inversion.images.dtype == images.dtype
    assert torch.isfinite(inversion.initial_loss).all() and not inversion.nonfinite.any()
    assert (inversion.final_loss <= inversion.initial_loss * (1 + 1e-3)).all()


def check(made: Made) -> None:
    """Make a network and invert it, or compare the error with what is to be said."""
    model = made.model()
    images = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(made.rng_seed), dtype=made.dtype)
    mode, before = model.training, deepcopy({k: v for k, v in model.state_dict().items() if v.device.type != "meta"})
    network = outcome(lambda: as_network(model, images[:2]), "net", "sequential", may_warn="torch")
    assert model.training == mode
    if made.verdicts:
        assert isinstance(network, NetworkError)
        message = str(network).lower().replace("sequential", "net")
        assert any(text.lower() in message for text in made.verdicts), message
        return
    assert isinstance(network, Network), network
    check_cut(network, model.module if made.wrapper == "DataParallel" else model, images)
    check_inversion(network, images)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


PLAIN = Made((), None, False, "linear", 2, "none", double=False, rng_seed=0)


@pytest.mark.parametrize("piece", FINE)
def test_each_piece_can_be_inverted(piece: str) -> None:
    check(replace(PLAIN, pieces=(piece,)))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(fault: str) -> None:
    check(replace(PLAIN, fault=fault))
    if fault not in ON_MAPS_ONLY:
        check(replace(PLAIN, fault=fault, on_vector=True))


@pytest.mark.parametrize("head", HEADS)
def test_each_head_is_cut_or_named(head: str) -> None:
    check(replace(PLAIN, head=head))


@inputs(120, made=networks())
def test_a_network_is_cut_and_inverted_or_its_fault_is_named(made: Made) -> None:
    check(made)
