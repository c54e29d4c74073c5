"""The precision of layers: its name, and which ones a device has instructions for."""

import pytest
import torch

from netsim.inversion.precision import Precision, fast_precisions


@pytest.mark.parametrize(
    ("precision", "name"),
    [
        (Precision(), "float32"),
        (Precision("bfloat16", "bfloat16"), "bfloat16"),
        (Precision("tf32", "tf32"), "tf32"),
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


@pytest.mark.parametrize(("native", "expected"), [(True, ("tf32", "float16", "bfloat16")), (False, ("float16",))])
def test_on_a_gpu_tf32_and_bfloat16_are_fast_where_it_has_them(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert fast_precisions(torch.device("cuda")) == expected


def test_tf32_is_a_mode_and_no_type():
    assert (Precision("tf32", "tf32").tensors, Precision("float16", "tf32").grouped_tensors) == (torch.float32,) * 2
    assert Precision("bfloat16").tensors == torch.bfloat16


def test_no_half_precision_is_fast_on_an_unknown_device():
    assert fast_precisions(torch.device("meta")) == ()
