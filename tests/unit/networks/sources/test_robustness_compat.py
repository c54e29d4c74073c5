"""robustness beside current torchvision, and without CUDA. tests/integration/test_parity.py computes with it."""

import importlib
import sys

import pytest
import torch
import torchvision

from netsim.networks.sources._robustness_compat import SUBMODULES, _StayingTensor, import_robustness

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="robustness uses CUDA where there is some")


def test_robustness_is_imported_once_with_its_submodules():
    robustness = import_robustness()
    assert import_robustness() is robustness
    assert all(f"robustness.{name}" in sys.modules for name in SUBMODULES)


def test_the_stand_in_for_torchvisions_old_module_has_the_function_that_old_code_imports():
    import_robustness()
    module = importlib.import_module("torchvision.models.utils")
    assert module.load_state_dict_from_url is torch.hub.load_state_dict_from_url
    assert torchvision.models.resnet18(weights=None) is not None  # torchvision itself still works


def test_a_staying_tensor_ignores_cuda():
    plain = _StayingTensor([1.0, 2.0]).cuda()
    assert type(plain) is torch.Tensor and plain.device.type == "cpu"


@without_cuda
def test_models_and_attacks_stay_on_the_cpu():
    robustness = import_robustness()
    torch.manual_seed(0)
    model, _ = robustness.model_utils.make_and_restore_model(
        arch=robustness.cifar_models.ResNet18(wm=0.125), dataset=robustness.datasets.CIFAR("unused")
    )
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
    assert model.cuda() is model
    images = torch.rand(2, 3, 32, 32)
    settings = {"constraint": "2", "eps": 0.5, "step_size": 0.25, "iterations": 2, "do_tqdm": False}
    _, attacked = model.eval()(images, torch.tensor([1, 2]), make_adv=True, **settings)
    lengths = (attacked - images).flatten(1).norm(dim=1)
    assert type(attacked) is torch.Tensor and (lengths > 0).all() and (lengths <= 0.5 + 1e-5).all()
