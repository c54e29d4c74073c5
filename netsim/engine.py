"""The engine of inversion: loss and direction of steepest descent of a batch of images, as fast as the device allows.

n = images, C, H, W = an image, d = width of the representation.

What an iteration needs of a network is its loss ||rep(x) - t|| / ||t|| and the gradient of it by the images. So the
engine takes one forward and one input gradient: no head, no weight gradients. It works on a copy of the network, where
BatchNorm is folded into the convolution before it, layers are stored channels last, and weights and activations have 16
bits where a half precision is asked for. Images, losses and what is added up over iterations stay in the dtype of the
images; whoever reports a loss measures it again with the network itself.

Images are evaluated `batch_size` at a time. When that does not fit into memory, half as many are tried from there on.
"""

import gc
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import psutil
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from netsim.errors import DataError, NetworkError
from netsim.networks import Network, sharing_copy
from netsim.networks.network import first_line

logger = logging.getLogger(__name__)

Represent = Callable[[Tensor], Tensor]  # images (n, C, H, W) -> representations (n, d), each image by itself
Precision = Literal["float32", "float16", "bfloat16", "auto"]
T = TypeVar("T")
Dtype = Literal["float32", "float16", "bfloat16"]

EXACT_ENOUGH = 0.01
"""Most that a half precision may change a representation, relative to its length: a tenth of the usual tolerance."""

COTANGENT_SCALES = (2.0**10, 2.0**2, 2.0**-6)
"""Lengths of the cotangent with which a gradient is tried in float16, where one could overflow or vanish."""

MOST_IMAGES = {"cpu": 32, "cuda": 256}
"""Images at a time that no probe goes beyond: more are hardly faster, unless images and network are tiny."""

MEMORY_SHARE = 0.7
"""Of the free memory, what a batch may take: convolutions have work space that the probe does not see."""


@dataclass(frozen=True)
class Plan:
    """In which precision layers work. Recorded with a run, so that all its shards are computed alike.

    Grouped convolutions, depthwise ones among them, have their own: on CPUs with fast 16-bit matrix units, these are of
    no use to them, and they are several times slower in 16 bits than in 32.
    """

    dtype: Dtype = "float32"
    grouped: Dtype = "float32"

    def __str__(self) -> str:
        return self.dtype if self.grouped == self.dtype else f"{self.dtype}, grouped convolutions {self.grouped}"


class Engine:
    """`network` on its device, ready to be inverted. It follows no later change of the network's weights.

    `example_images` (n, C, H, W) in [0, 1] are what the folded copy is checked on; one is enough. `batch_size` None is
    chosen by a probe of the memory that an image takes (`fitting_batch_size`), besides the `kept_bytes` that the caller
    keeps of it.
    """

    def __init__(
        self,
        network: Network,
        example_images: Tensor,
        *,
        plan: Plan = Plan(),
        batch_size: int | None = None,
        kept_bytes: int = 0,
    ) -> None:
        self.network = network
        self.plan = plan
        self.device = network.mean.device
        example = example_images[:1].detach().to(self.device)
        with torch.inference_mode(False):
            example = example.clone()  # what was made in inference mode takes no gradient
            self._body = _prepared(network, example, plan)
        self.batch_size = batch_size or 1
        if plan != Plan():
            self._require_precision(example)
        if batch_size is None:
            self.batch_size = fitting_batch_size(self, example, kept_bytes=kept_bytes)

    def parts(self) -> Iterator[nn.Module]:
        """The layers that are evaluated."""
        return self._body.modules()

    def represent(self, images: Tensor) -> Tensor:
        """(n, d), in the precision of the plan: what `measure` differentiates."""
        return self._body(self.network.normalised(images))

    def measure(self, images: Tensor, target: Tensor, *, with_descent: bool = True) -> tuple[Tensor, Tensor]:
        """Loss (n,) of `images` against the representations `target` (n, d), and the direction of steepest descent.

        The direction (n, C, H, W) is minus the gradient of ||rep - t||, that is, of the loss times ||t||; it is empty
        without `with_descent`. Raises NetworkError if not even one image fits into memory.
        """
        return self._fitting(lambda: self._in_batches(images, target, with_descent), len(images))

    def represent_exactly(self, images: Tensor) -> Tensor:
        """(n, d) by the network itself, not in the precision of the plan: `images` (n, C, H, W) on any device."""
        return self._all(self.network.represent, images)

    def represent_all(self, images: Tensor) -> Tensor:
        """(n, d) by what `measure` differentiates: `images` (n, C, H, W) on any device."""
        return self._all(self.represent, images)

    @torch.no_grad()
    def _all(self, represent: Represent, images: Tensor) -> Tensor:
        def in_batches() -> Tensor:
            return torch.cat([represent(batch.to(self.device)) for batch in images.split(self.batch_size)])

        return self._fitting(in_batches, len(images))

    def _fitting(self, work: Callable[[], T], images: int) -> T:
        """What `work` gives, with as many images at a time as fit into memory."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                fault = str(error).partition("\n")[0]
            self._halve(images, fault)  # out here, where the error no longer holds what was allocated

    @torch.no_grad()
    def _require_precision(self, example: Tensor) -> None:
        try:
            self._fitting(lambda: self.represent(example), 1)
        except RuntimeError as error:
            raise NetworkError(
                f"{self.network.name} cannot be computed in {self.plan} ({first_line(error)}); "
                "give inversion.precision float32 or auto"
            ) from error

    def _in_batches(self, images: Tensor, target: Tensor, with_descent: bool) -> tuple[Tensor, Tensor]:
        found = [
            measure(self.represent, *batch, with_descent=with_descent, scales=self._scales)
            for batch in zip(images.split(self.batch_size), target.split(self.batch_size), strict=True)
        ]
        losses, descents = zip(*found, strict=True)
        return (losses[0], descents[0]) if len(found) == 1 else (torch.cat(losses), torch.cat(descents))

    @property
    def _scales(self) -> tuple[float, ...]:
        """bfloat16 reaches as far as float32 does."""
        return COTANGENT_SCALES if "float16" in (self.plan.dtype, self.plan.grouped) else (1.0,)

    def _halve(self, images: int, fault: str) -> None:
        tried = min(self.batch_size, images)
        if tried == 1:
            raise NetworkError(
                f"{self.network.name} does not fit into the memory of {self.device} with a single image; "
                f"give smaller images, fewer workers, or a device with more memory ({fault})"
            )
        self.batch_size = -(-tried // 2)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "%s: out of memory with %d images at a time; going on with %d", self.network.name, tried, self.batch_size
        )


def measure(
    represent: Represent,
    images: Tensor,
    target: Tensor,
    *,
    with_descent: bool = True,
    scales: tuple[float, ...] = (1.0,),
) -> tuple[Tensor, Tensor]:
    """Loss (n,) of the images and direction (n, C, H, W) of steepest descent of ||rep - t||, as in Engine.measure.

    It is taken from the representation's side, with the residual as a unit vector, because that is as exact whatever
    the scale of the representation is, and because the derivative of a norm at zero, which is where a seed that equals
    its target starts, never comes up. `scales` are tried in turn as the length of the unit vector, for the images whose
    gradient is not finite with those before; the result does not depend on them otherwise.
    """
    with torch.set_grad_enabled(with_descent):
        leaf = images.detach().requires_grad_(with_descent)  # shares memory: no copy
        representation = represent(leaf)
    if representation.shape != target.shape:
        raise DataError(
            f"the images are represented by {tuple(representation.shape)} numbers and the target representation has "
            f"{tuple(target.shape)}; both must be (images, width) from the same network"
        )
    residual = target - representation.detach()  # in the dtype of the images, also if the network works in half
    separation = torch.linalg.vector_norm(residual, dim=1)
    loss = separation / torch.linalg.vector_norm(target, dim=1)
    if not with_descent:
        return loss, images.new_empty(0)
    if not representation.requires_grad:
        raise NetworkError(
            "the representation has no gradient with respect to the images; "
            "give a network that is differentiable, without no_grad or detach inside"
        )
    unit = residual / torch.where(separation == 0, 1, separation)[:, None]
    return loss, _gradient(representation, leaf, unit, scales)


def relative_distance(representation: Tensor, target: Tensor) -> Tensor:
    """||representation - target|| / ||target|| of each row: (n, d), (n, d) -> (n,)."""
    return torch.linalg.vector_norm(representation - target, dim=1) / torch.linalg.vector_norm(target, dim=1)


def _gradient(representation: Tensor, leaf: Tensor, unit: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Of `unit` . representation by `leaf`; where it is not finite with one scale, with the next."""
    found = None
    for scale in scales:
        more = scale != scales[-1]
        (descent,) = torch.autograd.grad(representation, leaf, unit * scale, retain_graph=more)
        descent = descent / scale if scale != 1 else descent
        found = descent if found is None else torch.where(lost, descent, found)  # noqa: F821 (not in the first round)
        if not more:
            break
        lost = (~torch.isfinite(found).flatten(1).all(dim=1) & torch.isfinite(unit).all(dim=1))[:, None, None, None]
        if not lost.any():
            break
    assert found is not None
    return found


# ---- the copy that is evaluated


def _prepared(network: Network, example: Tensor, plan: Plan) -> nn.Module:
    """The body of the network, folded, channels last, in the precision of the plan."""
    body = _laid_out(_folded(network, example), network, example)
    if plan.dtype == plan.grouped == "float32":
        body = _with_quick_stem(body) if example.device.type == "cpu" else body
        return body.eval().requires_grad_(False)
    half, grouped = getattr(torch, plan.dtype), getattr(torch, plan.grouped)
    body = body.to(half)
    if grouped != half:
        for path, conv in list(body.named_modules()):
            if isinstance(conv, nn.Conv2d) and conv.groups > 1:
                body = _replaced(body, path, _OfOtherPrecision(conv.to(grouped), inside=grouped, outside=half))
    return _Entering(body, half).eval().requires_grad_(False)


def _laid_out(body: nn.Module, network: Network, example: Tensor) -> nn.Module:
    """Channels last, which convolutions are quickest in; but not if the network then fails, as one does that takes maps
    of features for rows of numbers with `view`.
    """
    try:
        with torch.no_grad():
            _in_format(body, torch.channels_last)(network.normalised(example.to(network.mean)))
    except RuntimeError as error:
        if _is_out_of_memory(error):
            raise
        logger.info("%s: not stored channels last (%s)", network.name, first_line(error))
    else:
        return body
    for path, norm in list(_in_format(body, torch.contiguous_format).named_modules()):
        if type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
            body = _replaced(body, path, _ScaleAndShift(norm))
    return body


def _in_format(body: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Its tensors of four dimensions: `Module.to` knows no other."""
    return body._apply(lambda tensor: tensor.to(memory_format=layout) if tensor.dim() == 4 else tensor)


class _ScaleAndShift(nn.Module):
    """A BatchNorm in evaluation. Through its own, torch (2.14) takes a wrong gradient on CPUs of one contiguous image
    where the cotangent has other strides.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
        shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
        for name, values in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, values.detach()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class _Entering(nn.Module):
    """Images come in the network's dtype and are normalised in it."""

    def __init__(self, body: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.body, self.dtype = body, dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images.to(self.dtype))


class _OfOtherPrecision(nn.Module):
    def __init__(self, layer: nn.Module, *, inside: torch.dtype, outside: torch.dtype) -> None:
        super().__init__()
        self.layer, self.inside, self.outside = layer, inside, outside

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(self.inside)).to(self.outside)


def _folded(network: Network, example: Tensor) -> nn.Module:
    """A copy of the body whose BatchNorms are part of the convolutions before them; a plain copy if that is not exact.

    Which convolution comes before a BatchNorm is observed, not read off the names: so no architecture needs code of its
    own. Whether its output goes elsewhere too cannot be observed; then the folded copy gives other representations.
    """
    body = sharing_copy(network.body)
    normalised = network.normalised(example.to(network.mean))
    with torch.no_grad():
        expected = network.body(normalised)
        for conv_path, norm_path in _convolutions_before_norms(body, normalised):
            conv, norm = body.get_submodule(conv_path), body.get_submodule(norm_path)
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            fused = fuse_conv_bn_eval(conv, norm)
            body = _replaced(_replaced(body, conv_path, fused), norm_path, nn.Identity())
        rounding = 1e-4 if expected.dtype == torch.float32 else 1e-10
        try:
            change = float(torch.linalg.vector_norm(body(normalised) - expected))
        except AttributeError:  # of a BatchNorm that the network asks for
            change = math.inf
        if change <= rounding * float(torch.linalg.vector_norm(expected)):
            return body
    logger.info("%s: BatchNorm cannot be folded into its convolutions; inverting it unfolded", network.name)
    return sharing_copy(network.body)


def _convolutions_before_norms(body: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Paths of each convolution and the BatchNorm that was given its output, untouched; each runs once."""
    outputs: dict[int, tuple[str, Tensor, int]] = {}  # holds the tensors, or an id could come back
    found: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()

    def after_conv(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            calls[path] += 1
            outputs[id(output)] = (path, output, output._version)

        return hook

    def before_norm(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[path] += 1
            conv, output, version = outputs.get(id(inputs[0]), ("", None, 0))
            if output is inputs[0] and inputs[0]._version == version:  # no activation has worked on it in place
                found.append((conv, path))

        return hook

    hooks = []
    for path, module in body.named_modules():
        if _has_hooks(module) or not path:
            continue
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(after_conv(path)))
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(before_norm(path)))
    try:
        body(images)
    finally:
        for hook in hooks:
            hook.remove()
    fed = Counter(conv for conv, _ in found)
    return [(conv, norm) for conv, norm in found if calls[conv] == calls[norm] == fed[conv] == 1]


def _with_quick_stem(body: nn.Module) -> nn.Module:
    for path, conv in list(body.named_modules()):
        if type(conv) is nn.Conv2d and QuickStem.fits(conv) and not _has_hooks(conv):
            body = _replaced(body, path, QuickStem(conv))
    return body


class QuickStem(nn.Module):
    """A convolution from few channels, of stride 2 and kernel 5 x 5 or more, with a quicker gradient on CPUs.

    oneDNN takes the gradient by the image with three output channels, at a quarter of the speed of other layers. The
    same sums are a convolution of stride 1 to the four phases of the image (even and odd rows and columns), which have
    four times as many channels; zeros make them a multiple of 8.
    """

    weight: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        phases = nn.functional.pad(conv.weight, (1, 0, 1, 0))  # (out, in, 2m, 2m)
        phases = phases.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        weight = phases.flip(2, 3).transpose(0, 1)  # (4 in, out, m, m)
        weight = torch.cat([weight, weight.new_zeros(-len(weight) % 8, *weight.shape[1:])])
        self.register_buffer("weight", weight.detach().contiguous(memory_format=torch.channels_last))

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        size = conv.kernel_size[0]
        return (
            conv.in_channels <= 4
            and conv.kernel_size == (size, size)
            and size >= 5
            and size % 2 == 1
            and conv.stride == (2, 2)
            and conv.padding == (size // 2, size // 2)
            and conv.padding_mode == "zeros"
            and (conv.dilation, conv.groups) == ((1, 1), 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return _QuickStemGradient.apply(images, self.conv, self.weight)


class _QuickStemGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, conv: nn.Conv2d, weight: Tensor) -> Tensor:
        ctx.weight, ctx.images = weight, images.shape
        return conv(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        _, channels, height, width = ctx.images
        first = ctx.weight.shape[-1]  # of the padded image, what comes before the image itself
        phases = nn.functional.conv2d(gradient, ctx.weight, padding=first - 1)[:, : 4 * channels]
        return nn.functional.pixel_shuffle(phases, 2)[..., first : first + height, first : first + width], None, None


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _replaced(body: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    if not path:
        return layer
    parent, _, child = path.rpartition(".")
    setattr(body.get_submodule(parent), child, layer)
    return body


# ---- which precision


def choose_plan(network: Network, precision: Precision, images: Tensor) -> Plan:
    """The plan for a precision, on the network's device.

    "auto" tries, on `images` (n, C, H, W), those that the device has, and takes the fastest that changes no
    representation by more than `EXACT_ENOUGH`; only then does the answer depend on the clock.

    A network in float64 stays in it. Raises NetworkError for one that cannot be computed in the precision asked for.
    """
    if precision == "float32" or network.mean.dtype != torch.float32:
        return Plan()
    if precision != "auto":
        grouped: Dtype = "float32" if network.mean.device.type == "cpu" else precision
        if precision not in fast_precisions(network.mean.device):
            logger.warning("%s is slow on this %s: it has no instructions for it", precision, network.mean.device.type)
        plan = Plan(precision, grouped)
        Engine(network, images, plan=plan, batch_size=1)  # or it could not be computed, which is said here
        return plan
    halves = fast_precisions(network.mean.device)
    candidates = [Plan(), *(Plan(half, grouped) for half in halves for grouped in (half, "float32"))]
    timed = {plan: _seconds(network, plan, images) for plan in candidates if _is_exact(network, plan, images)}
    chosen = min(timed, key=timed.__getitem__)
    tried = "; ".join(f"{plan}: {1000 * seconds:.0f} ms" for plan, seconds in timed.items())
    logger.info(
        "%s: inverting in %s (an iteration of %d images takes, in %s)", network.name, chosen, len(images), tried
    )
    return chosen


def fast_precisions(device: torch.device) -> tuple[Dtype, ...]:
    """The 16-bit precisions that the device computes in by itself; elsewhere they are emulated, many times slower."""
    if device.type == "cuda":
        return ("float16", "bfloat16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("float16",)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        supported: dict[Dtype, bool] = {
            "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported(),
            "bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        }
        return tuple(name for name, fast in supported.items() if fast)
    return ()


def _is_exact(network: Network, plan: Plan, images: Tensor) -> bool:
    if plan == Plan():
        return True
    with torch.no_grad():
        images = images.to(network.mean.device)
        exact = network.represent(images)
        try:
            rounded = Engine(network, images, plan=plan, batch_size=len(images)).represent(images)
        except NetworkError as error:
            logger.info("%s", error)
            return False
    return bool((relative_distance(rounded, exact) <= EXACT_ENOUGH).all())  # false for NaN


def _seconds(network: Network, plan: Plan, images: Tensor, *, repeats: int = 3) -> float:
    """The least of some iterations, after one that does not count."""
    images = images.to(network.mean.device)
    engine = Engine(network, images, plan=plan, batch_size=len(images))
    target = engine.represent_exactly(images.flip(0).roll(1, dims=-1))
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        engine.measure(images, target)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


# ---- how many images at a time


def fitting_batch_size(engine: Engine, example: Tensor, *, kept_bytes: int = 0) -> int:
    """The largest power of two that fits into the memory that is free, going by what one and two images take.

    `kept_bytes` is what an image takes besides, between iterations.
    On a CPU, the free memory is shared among as many workers as there are cores.
    """
    most = MOST_IMAGES.get(engine.device.type, 32)
    engine.batch_size = 2
    one, two = (peak_bytes(engine, example.expand(n, -1, -1, -1)) for n in (1, 2))
    if engine.batch_size == 1:  # two were too many
        return 1
    each = max(two - one, 1)
    room = MEMORY_SHARE * _free_bytes(engine.device) - (one - each)
    each += kept_bytes
    fitting = max(1, min(most, int(room // each)))
    return 1 << (fitting.bit_length() - 1)


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available / (os.cpu_count() or 1)


def peak_bytes(engine: Engine, images: Tensor) -> int:
    """Most memory that tensors made by one iteration hold at once."""
    target = torch.ones(len(images), engine.network.width, dtype=images.dtype, device=engine.device)
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(engine.device)
        before = torch.cuda.memory_allocated(engine.device)
        engine.measure(images, target)
        return torch.cuda.max_memory_allocated(engine.device) - before
    with LiveBytes() as live:
        engine.measure(images, target)
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Adds up, after every operation, the storages that operations have made and that nothing has freed yet."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in _storages((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in given:
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._made = {key: made for key, made in self._made.items() if not made[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._made.values()))
        return result


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(sign in str(error) for sign in OUT_OF_MEMORY)


OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "Cannot allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)
"""What the plain RuntimeErrors say that a CPU has for it: torch's own, the system's, C++'s, and those of oneDNN."""
