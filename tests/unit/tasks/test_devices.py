"""GPUs are counted as torch counts them, in another process."""

import sys

import pytest
import torch

from netsim.errors import SettingsError
from tasks import devices
from tasks.devices import count_gpus, visible_gpus


def fake_torch(folder, monkeypatch, body: str) -> None:
    """Let the other process import a torch with this source, on a machine with device files."""
    (folder / "torch.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(devices, "DEVICE_FILES", ("null",))


@pytest.fixture
def three_gpus(tmp_path, monkeypatch):
    fake_torch(tmp_path, monkeypatch, "class cuda:\n    device_count = staticmethod(lambda: 3)\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_count_is_that_of_torch(monkeypatch):
    assert count_gpus() == torch.cuda.device_count()
    monkeypatch.setattr(devices, "DEVICE_FILES", ("null",))  # the other process is asked
    assert count_gpus() == torch.cuda.device_count()


def test_no_process_is_started_where_no_driver_has_made_device_files(three_gpus, monkeypatch):
    monkeypatch.setattr(devices, "DEVICE_FILES", ("no-such-device*",))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert visible_gpus(None) == []


def test_all_gpus_are_used_unless_fewer_are_requested(three_gpus):
    assert visible_gpus(None) == ["0", "1", "2"]
    assert visible_gpus(2) == ["0", "1"]
    assert visible_gpus(0) == []
    with pytest.raises(SettingsError, match=r"cluster.gpus must be at most 3, the GPUs that torch finds here, got 4"):
        visible_gpus(4)


def test_gpus_keep_the_names_that_cuda_visible_devices_gives_them(three_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8932f937,7")
    assert visible_gpus(None) == ["5", "GPU-8932f937", "7"]
    assert visible_gpus(2) == ["5", "GPU-8932f937"]


def test_a_torch_that_fails_is_an_error_with_its_reason(tmp_path, monkeypatch):
    fake_torch(tmp_path, monkeypatch, "raise ImportError('libcudart.so.12: cannot open shared object file')")
    with pytest.raises(
        SettingsError, match=r"cannot count GPUs: ImportError: libcudart.so.12: .* set cluster.gpus to 0"
    ):
        visible_gpus(None)
