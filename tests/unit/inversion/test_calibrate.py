"""The precision of an inversion: what `auto` chooses, and what is refused."""

import logging

import pytest
import torch
from torch import nn

from netsim.errors import NetworkError
from netsim.inversion import calibrate
from netsim.inversion.calibrate import choose_precision
from netsim.inversion.precision import Precision, fast_precisions
from netsim.networks import as_network
from unit.inversion.examples import HALF, convolutional, images


def test_auto_takes_the_fastest_of_what_is_exact_enough(monkeypatch):
    network, x = convolutional(), images(4)
    seconds = {Precision(): 3.0, HALF: 2.0, Precision("bfloat16", "bfloat16"): 1.0}
    monkeypatch.setattr(calibrate, "fast_precisions", lambda _device: ("float16", "bfloat16"))
    monkeypatch.setattr(calibrate, "_seconds", lambda _network, precision, _images, _size: seconds.get(precision, 9.0))
    assert choose_precision(network, "auto", x) == Precision("bfloat16", "bfloat16")
    monkeypatch.setattr(calibrate, "MAX_CHANGE", 1e-3)  # bfloat16 has 8 bits
    assert choose_precision(network, "auto", x) == HALF
    monkeypatch.setattr(calibrate, "MAX_CHANGE", 1e-6)
    assert choose_precision(network, "auto", x) == Precision()


def test_auto_measures_and_skips_precisions_that_the_device_has_no_instructions_for(caplog):
    network = convolutional()
    with caplog.at_level(logging.INFO, logger="netsim.inversion.calibrate"):
        precision = choose_precision(network, "auto", images(4))
    assert precision.dtype in ("float32", *fast_precisions(torch.device("cpu")))
    assert "inverting in" in caplog.text and " ms in float32" in caplog.text


def test_tf32_is_tried_for_all_layers_at_once(monkeypatch):
    tried = []
    monkeypatch.setattr(calibrate, "fast_precisions", lambda _device: ("tf32",))
    monkeypatch.setattr(
        calibrate, "_seconds", lambda _network, precision, _images, _size: tried.append(precision) or 1.0 / len(tried)
    )
    assert choose_precision(convolutional(), "auto", images(4)) == Precision("tf32", "tf32")
    assert tried == [Precision(), Precision("tf32", "tf32")]


@pytest.mark.parametrize(("fast", "expected"), [(("tf32",), Precision("tf32", "tf32")), ((), Precision())])
def test_tf32_by_name_is_float32_where_there_is_none_and_the_log_says_so(monkeypatch, caplog, fast, expected):
    monkeypatch.setattr(calibrate, "fast_precisions", lambda _device: fast)
    assert choose_precision(convolutional(), "tf32", images(2)) == expected
    assert ("this cpu has no TF32; inverting in float32" in caplog.text) == (not fast)


class WithCoordinates(nn.Module):
    """A network that creates tensors in float32, whatever the precision of its input."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(4, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        column = torch.linspace(0, 1, x.shape[-1]).expand(len(x), 1, *x.shape[-2:])
        return self.out(self.conv(torch.cat([x, column], dim=1)).mean((2, 3)))


def test_a_network_that_fails_in_half_precision_is_skipped_by_auto_and_refused_by_name(monkeypatch):
    network = as_network(WithCoordinates(), images(1, (3, 16, 16)))
    monkeypatch.setattr(calibrate, "fast_precisions", lambda _device: ("bfloat16",))
    assert choose_precision(network, "auto", images(2, (3, 16, 16))) == Precision()
    with pytest.raises(
        NetworkError, match=r"cannot be computed in bfloat16.*; set inversion.precision to float32 or auto"
    ):
        choose_precision(network, "bfloat16", images(2, (3, 16, 16)))


def test_a_network_in_double_precision_stays_in_it():
    assert choose_precision(convolutional(dtype=torch.float64), "float16", images(2).double()) == Precision()


def test_float32_is_taken_without_a_measurement(monkeypatch):
    monkeypatch.setattr(calibrate, "Engine", None)
    assert choose_precision(convolutional(), "float32", images(2)) == Precision()


@pytest.mark.parametrize("fast", [("bfloat16",), ()], ids=["fast", "emulated"])
def test_a_precision_by_name_keeps_grouped_convolutions_in_float32_on_a_cpu_and_warns_if_slow(
    monkeypatch, caplog, fast
):
    monkeypatch.setattr(calibrate, "fast_precisions", lambda _device: fast)
    assert choose_precision(convolutional(), "bfloat16", images(2)) == Precision("bfloat16", "float32")
    warned = "bfloat16 is slow on this cpu, which has no instructions for it" in caplog.text
    assert warned == (not fast)


def test_a_precision_in_which_a_representation_overflows_is_not_exact_enough():
    network, x = convolutional(), images(2)
    assert calibrate._is_exact(network, HALF, x, 2)
    with torch.no_grad():
        next(network.body.parameters()).mul_(1e8)
    assert network.represent(x).isfinite().all()
    assert not calibrate._is_exact(network, HALF, x, 2)
