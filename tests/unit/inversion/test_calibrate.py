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
    monkeypatch.setattr(calibrate, "_seconds", lambda _network, precision, _images: seconds.get(precision, 9.0))
    assert choose_precision(network, "auto", x) == Precision("bfloat16", "bfloat16")
    monkeypatch.setattr(calibrate, "MAX_CHANGE", 1e-3)  # bfloat16 has 8 bits
    assert choose_precision(network, "auto", x) == HALF
    monkeypatch.setattr(calibrate, "MAX_CHANGE", 1e-6)
    assert choose_precision(network, "auto", x) == Precision()


def test_auto_measures_for_real_and_leaves_out_what_the_device_has_no_instructions_for(caplog):
    network = convolutional()
    with caplog.at_level(logging.INFO, logger="netsim.inversion.calibrate"):
        precision = choose_precision(network, "auto", images(4))
    assert precision.dtype in ("float32", *fast_precisions(torch.device("cpu")))
    assert "inverting in" in caplog.text and " ms in float32" in caplog.text


class WithCoordinates(nn.Module):
    """It makes tensors of its own, in float32 whatever it is given."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(4, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        where = torch.linspace(0, 1, x.shape[-1]).expand(len(x), 1, *x.shape[-2:])
        return self.out(self.conv(torch.cat([x, where], dim=1)).mean((2, 3)))


def test_what_cannot_be_computed_in_half_precision_is_not(monkeypatch):
    network = as_network(WithCoordinates(), images(1, (3, 16, 16)))
    monkeypatch.setattr(calibrate, "fast_precisions", lambda _device: ("bfloat16",))
    assert choose_precision(network, "auto", images(2, (3, 16, 16))) == Precision()
    with pytest.raises(
        NetworkError, match=r"cannot be computed in bfloat16.*; set inversion.precision to float32 or auto"
    ):
        choose_precision(network, "bfloat16", images(2, (3, 16, 16)))


def test_a_network_in_double_precision_stays_in_it():
    assert choose_precision(convolutional(dtype=torch.float64), "float16", images(2).double()) == Precision()
