"""What people get wrong when they begin, each with the one clear message it gets, before anything starts."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from flows.cli.main import main
from flows.clusters.settings import resolve_cluster

NETWORKS = ["small32:resnet18@none", "small32:vgg@none"]
IMAGES = {"source": "folder:photos"}
PAIRS = {"count": 32, "shard_size": 16}


def build(folder: Path) -> None:
    """Write sixty photographs of three classes, a settings file, and what someone may take for one."""
    rng = np.random.default_rng(0)
    for label in "abc":
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{number}.png")
    write(folder / "mine.yaml")
    (folder / "large.pt").touch()
    (folder / "my_nets.py").write_text("")


def write(path: Path, **changes: object) -> Path:
    path.write_text(
        yaml.safe_dump({"images": IMAGES, "networks": NETWORKS, "pairs": PAIRS} | changes), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    build(folder)
    return folder


@pytest.fixture
def complaint(desk, monkeypatch, capsys):
    """Return the error of a command that must fail, on one line."""
    monkeypatch.chdir(desk)

    def refuse(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["netsim", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (1, 2)
        printed = " ".join(capsys.readouterr().err.split())
        assert printed.count("netsim: ") == 1 and "Traceback" not in printed
        return printed.partition("netsim: ")[2]

    return refuse


SETTINGS = [
    (
        {"images": "folder:photos"},
        "images must be a mapping, got 'folder:photos'. Write `images: {source: folder:photos}`",
    ),
    ({"pairs": 32}, "pairs must be a mapping, got 32. Write `pairs: {count: 32}`"),
    ({"networks": NETWORKS[:1]}, "networks must be two or more, got 1"),
    (
        {"networks": ["resnet18", "small32:vgg"]},
        "no source 'resnet18' in network 'resnet18'; did you mean 'torchvision:resnet18' or 'timm:resnet18' or "
        "'small:resnet18' or 'small32:resnet18'?",
    ),
    (
        {"networks": ["large.pt", "small32:vgg"]},
        "network 'large.pt' is a file, and a file says nothing of the architecture. Write "
        "'torchvision:NAME@large.pt', or 'python:MODULE:FUNCTION@large.pt' for one of your own",
    ),
    (
        {"networks": ["my_nets:small", "small32:vgg"]},
        "no source 'my_nets' in network 'my_nets:small'; did you mean 'python:my_nets:small'?",
    ),
    ({"images": {"source": "photos"}}, "no image source 'photos'; did you mean 'folder:photos'?"),
    ({"images": {"source": "photos.npz"}}, "no image source 'photos.npz'; did you mean 'npz:photos.npz'?"),
    ({"images": {"source": "foldr:photos"}}, "no image source 'foldr:photos'; did you mean 'folder'?"),
    (
        {"pairs": {"count": 256, "shard_size": 16}},
        "256 pairs require as many different targets, got 60 images; draw at most 48 pairs (3 shards of 16), "
        "or add images",
    ),
]


@pytest.mark.parametrize(("changes", "message"), SETTINGS)
def test_a_mistake_in_a_settings_file(complaint, desk, changes, message):
    file = write(desk / "wrong.yaml", **changes)
    try:
        assert message in complaint("plan", "wrong.yaml")
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("results mine.yaml", "--store must be a folder, got the file {desk}/mine.yaml. Settings are run with"),
        ("run mine.yaml --store large.pt", "--store must be a folder, got the file {desk}/large.pt"),
        ("run mine.yaml --cluster nope.yaml", "no cluster file 'nope.yaml'"),
        ("run mine.yml", "no settings file 'mine.yml', and no sweep of that name; did you mean 'mine.yaml'?"),
        ("run dem", "no settings file 'dem', and no sweep of that name; did you mean 'demo'?"),
    ],
)
def test_a_mistake_on_the_command_line(complaint, desk, arguments, message):
    assert complaint(*arguments.split()).startswith(message.format(desk=desk))
    assert not (desk / "runs").exists()


@pytest.mark.parametrize(
    ("walltime", "message"),
    [
        ("8h", "nope.yaml: cluster of kind slurm: walltime must be HH:MM:SS or D-HH:MM:SS, got '8h', as in 08:00:00"),
        ("24:00", "walltime must be HH:MM:SS or D-HH:MM:SS, got '24:00'"),
        ("00:05:00", "leave_early must be less than walltime 00:05:00, got 600 s"),
    ],
)
def test_a_mistake_in_a_cluster_file(complaint, desk, walltime, message):
    (desk / "nope.yaml").write_text(f"cluster: {{kind: slurm, cores: 4, memory: 8GB, walltime: {walltime}}}\n")
    assert message in complaint("run", "mine.yaml", "--cluster", "nope.yaml")
    (desk / "nope.yaml").unlink()


def test_a_clock_needs_no_quotes(tmp_path):
    """To YAML 1.1, and so to PyYAML, 24:00:00 is the number 86400."""
    file = tmp_path / "slurm.yaml"
    file.write_text("cluster: {kind: slurm, cores: 4, memory: 8GB, walltime: 24:00:00}\n")
    assert resolve_cluster(None, file=str(file)).walltime == "24:00:00"


def test_weights_that_cannot_be_downloaded_are_one_error_before_anything_starts(complaint, desk, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    write(desk / "published.yaml", networks=["torchvision:shufflenet_v2_x0_5", "torchvision:squeezenet1_1"])
    message = complaint("run", "published.yaml", "--store", "published")
    assert message.startswith("2 of 2 networks cannot be used: ")
    assert message.count("cannot download the weights IMAGENET1K_V1 of ") == 2
    assert "name a file with @FILE, or use random weights with @none" in message
    assert not (desk / "published").exists()
