"""The precision of layers: its name, and which ones a device has instructions for."""

import pytest
import torch

from netsim.inversion.precision import Precision, fast_precisions


@pytest.mark.parametrize(
    ("precision", "name"),
    [
        (Precision(), "float32"),
        (Precision("bfloat16", "bfloat16"), "bfloat16"),
        (Precision("float16", "float32"), "float16, grouped convolutions float32"),
    ],
)
def test_a_precision_is_named_by_its_types(precision, name):
    assert str(precision) == name


@pytest.mark.parametrize(
    ("float16", "bfloat16", "expected"),
    [(True, True, ("float16", "bfloat16")), (False, True, ("bfloat16",)), (False, False, ())],
)
def test_on_a_cpu_fast_precisions_are_those_that_onednn_has_instructions_for(monkeypatch, float16, bfloat16, expected):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: float16, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bfloat16, raising=False)
    assert fast_precisions(torch.device("cpu")) == expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert fast_precisions(torch.device("cpu")) == ()


@pytest.mark.parametrize(("native", "expected"), [(True, ("float16", "bfloat16")), (False, ("float16",))])
def test_on_a_gpu_bfloat16_is_fast_unless_it_is_emulated(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert fast_precisions(torch.device("cuda")) == expected


def test_no_half_precision_is_fast_on_an_unknown_device():
    assert fast_precisions(torch.device("meta")) == ()
