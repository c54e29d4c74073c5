"""The work of benchmarks.memory, in a process of its own, by the netsim that PYTHONPATH names."""

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import yaml

NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=WORK)
    parser.add_argument("folder", type=Path, help="where the photographs are")
    parser.add_argument("--pixels", type=int, default=240)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--plain-allocator", action="store_true", help="do not call netsim.allocator")
    arguments = parser.parse_args()
    WORK[arguments.work](arguments)


def prepare(arguments: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    if arguments.plain_allocator:
        from netsim import allocator

        allocator._retain = lambda: False  # type: ignore[assignment]


def invert(arguments: argparse.Namespace) -> None:
    """Invert a batch of 32 images."""
    import torch

    import netsim

    prepare(arguments)
    shape = (3, arguments.pixels, arguments.pixels)
    network = netsim.load_network(f"timm:{NETWORKS[0]}@none", input_shape=shape)
    seeds = torch.rand(32, *shape, generator=torch.manual_seed(0))
    netsim.invert_images(network, seeds, seeds.flip(0), iterations=arguments.iterations)


def test_accuracy(arguments: argparse.Namespace) -> None:
    """Classify all photographs."""
    import netsim
    from netsim.images import load_images
    from netsim.networks.training import accuracy

    prepare(arguments)
    images = load_images(f"folder:{arguments.folder / 'photographs'}", size=arguments.pixels)
    weights = arguments.folder / f"{NETWORKS[0]}.safetensors"
    network = netsim.load_network(f"timm:{NETWORKS[0]}@{weights}", input_shape=images.shape)
    keep_memory(accuracy)(network, images)


def keep_memory(function: Callable[..., object]) -> Callable[..., object]:
    """Return `function` as a stage calls it, in code that has netsim.allocator."""
    try:
        from netsim.allocator import retaining_memory
    except ImportError:
        return function
    return retaining_memory(function)


def in_thread(work: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Do the work in another thread than the main one, as a Dask worker does."""

    def start(arguments: argparse.Namespace) -> None:
        thread = threading.Thread(target=work, args=(arguments,))
        thread.start()
        thread.join()

    return start


def sweep(arguments: argparse.Namespace) -> None:
    """Run a sweep of three networks on two workers."""
    settings = {
        "images": {"source": f"folder:{arguments.folder / 'photographs'}", "size": arguments.pixels},
        "networks": [f"{name}=timm:{name}@{arguments.folder / name}.safetensors" for name in NETWORKS],
        "pairs": {"count": 64, "shard_size": 32},
        "inversion": {"iterations": arguments.iterations},
    }
    store = Path(os.environ["STORE"])
    store.parent.mkdir(parents=True, exist_ok=True)
    file = store.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(settings))
    netsim, prefect = [sys.executable, "-m", "flows.cli"], Path(sys.executable).with_name("prefect")
    try:
        subprocess.run([*netsim, "run", str(file), "--store", str(store)], check=True)
    finally:
        subprocess.run([prefect, "server", "stop"], check=False)


WORK: dict[str, Callable[[argparse.Namespace], None]] = {
    "invert_images": invert,
    "invert_images in a thread": in_thread(invert),
    "test accuracy in a thread": in_thread(test_accuracy),
    "sweep of three networks": sweep,
}


if __name__ == "__main__":
    main()
