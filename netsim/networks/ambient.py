"""Independence of the state that a caller has set in torch: autocast, inference mode, default device and dtype, TF32.

A result depends on its inputs only, so whatever computes enters one of the two contexts below. They leave alone what
only observes (dispatch modes, hooks of modules), what the user requests of the machine (number of threads,
deterministic algorithms), and the flushing of denormal numbers, which torch can set but not read.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import overrides

# Device types with an autocast of their own that a caller may have enabled.
AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")


@contextmanager
def plain_torch() -> Iterator[None]:
    """Compute as torch does when it is imported, whatever the caller has set. Gradients are enabled."""
    with plain_numbers(), torch.inference_mode(False), _without_saved_tensor_hooks():
        yield


@contextmanager
def plain_numbers() -> Iterator[None]:
    """Compute the numbers that torch computes by default, in the gradient mode of the caller.

    New tensors are float32 and on the CPU, and float32 is not rounded to TF32 or bfloat16 in products and convolutions.
    """
    with ExitStack() as stack:
        stack.enter_context(_process_wide())
        for _ in range(torch._C._len_torch_function_stack()):  # a default device is one of these modes
            stack.enter_context(overrides._pop_mode_temporarily())
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def tf32_numbers() -> Iterator[None]:
    """Let a GPU round the factors of float32 products and convolutions to TF32, in the whole process.

    Enter it inside `plain_numbers`, which would switch it off, and in one thread at a time. CPUs are not concerned.
    """
    switches = _tf32_switches()
    before = [switch.read() for switch in switches]
    for switch in switches:
        switch.write(switch.plain[0])
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.write(value)


@contextmanager
def _without_saved_tensor_hooks() -> Iterator[None]:
    """Save tensors for gradients as they are, not packed by hooks of the caller."""
    autograd, hooks = torch._C._autograd, []
    while (pair := autograd._top_saved_tensors_default_hooks(False)) is not None:
        hooks.append(pair)
        autograd._pop_saved_tensors_default_hooks()
    try:
        yield
    finally:
        for pair in reversed(hooks):
            autograd._push_saved_tensors_default_hooks(*pair)


class _Switch(NamedTuple):
    """A setting of the whole process: how to read and write it, and its plain values, of which the first is written."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    plain: tuple[Any, ...]


def _precision(owner: Any) -> _Switch:
    """Return the switch of the bits that a backend computes float32 with."""
    return _Switch(
        lambda: owner.fp32_precision, lambda value: setattr(owner, "fp32_precision", value), ("ieee", "none")
    )


def _allow_tf32(owner: Any, plain: bool) -> _Switch:
    """Return the older switch of a backend, and the value that is written."""
    return _Switch(lambda: owner.allow_tf32, lambda value: setattr(owner, "allow_tf32", value), (plain,))


def _matmul_precision() -> str | None:
    """Return the older setting of the precision of products, or None if it contradicts the newer ones."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _set_matmul_precision(value: str | None) -> None:
    if value is not None:
        torch.set_float32_matmul_precision(value)


def _switches() -> list[_Switch]:
    """List the settings, those first that others inherit from."""
    backends: Any = torch.backends
    matmul = _Switch(_matmul_precision, _set_matmul_precision, ("highest",))
    always = [
        _Switch(torch.get_default_dtype, torch.set_default_dtype, (torch.float32,)),
        _Switch(torch.is_anomaly_enabled, torch.set_anomaly_enabled, (False,)),  # refuses gradients that are NaN
    ]
    if not hasattr(backends, "fp32_precision"):  # torch < 2.9
        return [*always, matmul, _allow_tf32(backends.cudnn, False)]
    parents = [_precision(owner) for owner in (backends, backends.cudnn, backends.mkldnn)]
    leaves = [
        _precision(getattr(backend, operation))
        for backend, operations in ((backends.cudnn, ("conv", "rnn")), (backends.mkldnn, ("conv", "rnn", "matmul")))
        for operation in operations
    ]
    return [*always, *parents, matmul, *leaves, _precision(backends.cuda.matmul)]


def _tf32_switches() -> list[_Switch]:
    """List the switches of convolutions and products on GPUs, with the value that allows TF32."""
    convolutions: Any = torch.backends.cudnn
    products: Any = torch.backends.cuda.matmul
    if hasattr(torch.backends, "fp32_precision"):
        owners: list[Any] = [convolutions.conv, products]
        return [_precision(owner)._replace(plain=("tf32",)) for owner in owners]
    return [_allow_tf32(owner, True) for owner in (convolutions, products)]  # torch < 2.9


class _Process:
    """Settings of the whole process, made plain while any thread computes; the last one out restores them."""

    def __init__(self) -> None:
        self.lock, self.entered = threading.Lock(), 0
        self.switches = _switches()
        self.before: list[Any] = []

    def enter(self) -> None:
        with self.lock:
            if not self.entered:
                self.before = [switch.read() for switch in self.switches]
            self.entered += 1
            for switch in self.switches:
                if switch.read() not in switch.plain:
                    switch.write(switch.plain[0])

    def leave(self) -> None:
        with self.lock:
            self.entered -= 1
            for switch, value in zip(self.switches, self.before, strict=True) if not self.entered else ():
                if switch.read() != value:
                    switch.write(value)


_PROCESS = _Process()


@contextmanager
def _process_wide() -> Iterator[None]:
    _PROCESS.enter()
    try:
        yield
    finally:
        _PROCESS.leave()
