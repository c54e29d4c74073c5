"""A sweep of networks of one's own, all named by files beside the settings, as users run it from other folders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from netsim.networks import content_hash, load_network
from netsim.networks.weights import named_tensors
from netsim.planning.resolve import resolve
from netsim.settings import load_settings
from netsim.store.run import Run
from netsim.store.stages import STAGES
from support.servers import netsim
from support.sweeps import TINY

ROOT = Path(__file__).parents[2]

NETS = """
import torch
from torch import nn
import layers_beside_the_settings as layers
from netsim import Preprocessing


def wide():
    torch.manual_seed(0)
    model = nn.Sequential(layers.convolution(), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 13 * 13, 10))
    model.preprocessing = Preprocessing(mean=(0.5,), std=(0.5,), size=28)
    return model
"""


def write_project(folder: Path) -> None:
    """Write settings with a checkpoint, a module and images beside them."""
    (folder / "weights").mkdir(parents=True)
    trained = named_tensors(load_network("small:vgg@none", rng_seed=7))
    state = {f"model.{name}": tensor.detach() for name, tensor in trained.items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"state": {}}}, folder / "weights/last.ckpt")
    (folder / "nets_beside_the_settings.py").write_text(NETS)
    (folder / "layers_beside_the_settings.py").write_text(
        "from torch import nn\n\n\ndef convolution():\n    return nn.Conv2d(1, 4, 3, stride=2)\n"
    )
    rng = np.random.default_rng(0)
    x, y = rng.integers(256, size=(64, 28, 28), dtype=np.uint8), np.arange(64) % 10
    np.savez(folder / "images.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    networks = ["mine=small:vgg@weights/last.ckpt", "python:nets_beside_the_settings:wide"]
    settings = TINY | {"images": {"source": "npz:images.npz"}, "networks": networks}
    settings |= {"pairs": {"count": 16, "shard_size": 8}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(settings))


def test_a_sweep_finds_what_is_beside_its_settings_from_another_folder(server, tmp_path):
    write_project(tmp_path / "me@lab")
    (tmp_path / "there").mkdir()
    store = str(tmp_path / "store")
    done = netsim("run", "../me@lab/sweep.yaml", "--store", store, "--workers", "1", env=server, cwd=tmp_path / "there")
    assert done.returncode == 0, done.stderr
    run = Run.open(store)
    references = [network.reference for network in run.sweep.networks]
    assert references == [
        f"small:vgg@{tmp_path}/me@lab/weights/last.ckpt",
        f"python:{tmp_path}/me%40lab/nets_beside_the_settings:wide",
    ]
    trained = load_network("small:vgg@none", rng_seed=7)
    facts = run.record("train", "mine").facts
    assert facts["weights_hash"] == content_hash(trained) and facts["origin"] == {"key": "state_dict.model"}
    assert not any(stage.missing(run) for stage in STAGES)


RESUME = """
import json, sys
from netsim.store.run import Run
from support.sweeps import run_all
from tasks.prepare import prepare

store = sys.argv[1]
print(json.dumps(run_all(prepare(Run.open(store).sweep.given_settings, store))))
"""


def test_a_store_alone_resumes_from_another_folder_in_another_process(tmp_path):
    """As `netsim run --store` does, without a server."""
    write_project(tmp_path / "me@lab")
    (tmp_path / "elsewhere").mkdir()
    store = str(tmp_path / "store")
    sweep = resolve(load_settings(f"{tmp_path}/me@lab/sweep.yaml"), store)
    Run.create(store, sweep)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    command = [sys.executable, "-c", RESUME, store]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    computed = json.loads(done.stdout)
    assert (computed["train"], computed["invert"], computed["report"]) == (2, 4, 1)
