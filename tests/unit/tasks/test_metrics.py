"""Prometheus metrics."""

import sys

import pytest
import torch
from prometheus_client import REGISTRY, generate_latest

from tasks import metrics


def test_the_memory_of_a_gpu_is_zero_in_a_process_without_torch_and_imports_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    assert metrics.gpu_memory() == 0 and "torch" not in sys.modules


def test_the_memory_of_a_gpu_is_its_peak_and_zero_before_the_first_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 12345)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert metrics.gpu_memory() == 0
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert metrics.gpu_memory() == 12345


@pytest.mark.parametrize(
    "name",
    [
        "shards_total",
        "pairs_total",
        "compute_seconds_total",
        "store_wait_seconds_total",
        "failed_shards_total",
        "iterations_total",
        "flops_total",
        "peak_flops",
        "gpu_memory_bytes",
        "missing_shards",
    ],
)
def test_prometheus_is_given_the_names_in_the_documentation(name):
    assert f"# TYPE netsim_{name.removesuffix('_total')}" in generate_latest(REGISTRY).decode()
