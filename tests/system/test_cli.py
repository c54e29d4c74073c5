"""The command line without a server: help, what it prints, and one clear error for each thing a user can get wrong."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from flows.cli.main import main
from flows.cli.session import preserve_keyboard_interrupt
from netsim.results.findings import headline
from netsim.results.results import load_results
from support.seaweed import free_ports
from support.servers import netsim
from support.sweeps import TINY


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, in this process."""
    monkeypatch.setattr(sys, "argv", ["netsim", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    found = capsys.readouterr()
    return int(ended.value.code or 0), found.out, found.err


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(monkeypatch, capsys, *map(str, arguments))


def write(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump(TINY | changes), encoding="utf-8")
    return path


@pytest.mark.parametrize("command", ["", "demo", "run", "plan", "status", "results", "report", "convert"])
def test_help_of_every_command_says_what_it_is_for(cli, command):
    code, out, _ = cli(*command.split(), "--help")
    assert code == 0 and "Usage" in out
    assert "--debug" in out or not command


def test_status_counts_what_is_done_and_missing(cli, finished):
    code, out, _ = cli("status", finished.url, "--json")
    stages = {stage["name"]: stage for stage in json.loads(out)["stages"]}
    assert code == 0 and (stages["invert"]["done"], stages["invert"]["total"]) == (12, 12)
    assert stages["invert"]["by_name"]["vgg"] == [4, 4]
    assert "invert" in cli("status", finished.url)[1]


def test_results_are_printed_for_people_and_for_programs(cli, finished):
    results = load_results(finished)
    printed = json.loads(cli("results", finished.url, "--json")[1])
    assert printed["natural"]["cka"] == results.cells("natural", "biased").tolist()
    assert printed["inverted"]["se"] == results.cells("inverted", "biased", kind="se").tolist()
    assert printed["difference_unbiased"]["value"] == results.means["difference", "unbiased"].value
    assert headline(results) in cli("results", finished.url)[1]


def test_report_writes_the_page_the_figures_and_the_tables(cli, finished, tmp_path):
    code, _, err = cli("report", finished.url, "-o", tmp_path / "out")
    assert code == 0, err
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "heatmaps.png", "natural.csv", "inverted.csv"} <= written


def test_everything_done_means_nothing_is_computed(cli, finished):
    """No server, no worker: the store says so."""
    code, out, _ = cli("run", "--store", finished.url)
    assert code == 0 and "nothing to do: the run is complete" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml"], "no settings file 'nowhere.yaml'"),
        (["run"], "no settings given. Give a YAML file, a sweep shipped with netsim (cifar10, demo, "),
        (
            ["run", "demo", "--set", "inversion.iteration=5"],
            "no setting 'inversion.iteration'; did you mean 'iterations'?",
        ),
        (["run", "demo", "--set", "networks=[small:vgg, small:resnet81]"], "did you mean 'resnet18'"),
        (["run", "demo", "--set", "pairs.count=3"], "pairs.count must be greater than or equal to 4, got 3"),
        (
            ["run", "demo", "--workers", "2", "--scheduler", "tcp://x:1"],
            "--workers and --scheduler exclude each other: each says where to run. Give only one",
        ),
        (["plan", "nowhere.yaml"], "no settings file 'nowhere.yaml'"),
        (["plan", "demo", "--set", "pairs.count=33"], "count must be a multiple of shard_size (64), got 33; use 64"),
        (
            ["plan", "demo", "--tflops", "x"],
            "--tflops must be a number or a range of TFLOP/s, got 'x'; write 9 or 6-12",
        ),
        (
            ["plan", "demo", "--tflops", "9", "--like", "runs/x"],
            "--like and --tflops exclude each other: both set the speed of the device. Give only one",
        ),
    ],
)
def test_a_mistake_in_the_command_or_the_settings_is_one_clear_line_and_exit_code_2(cli, tmp_path, arguments, message):
    code, _, err = cli(*arguments)
    assert message in err and err.startswith("netsim: ") and len(err.strip().splitlines()) <= 2
    assert code == 2
    assert list(tmp_path.iterdir()) == []  # nothing was begun


@pytest.mark.parametrize("command", ["status", "results", "report"])
def test_no_run_is_one_clear_line_and_exit_code_1(cli, command):
    code, _, err = cli(command, "nothing")
    assert code == 1 and err.startswith("netsim: no run at ") and "Traceback" not in err


def test_a_checkpoint_is_converted_once_it_is_allowed(cli, tmp_path):
    from netsim.networks import load_network
    from netsim.networks.sources.small import SMALL

    own = SMALL["shufflenet"]()
    torch.save(own.state_dict(), "x.pth")
    code, out, err = cli("convert", "small:shufflenet", "x.pth")
    assert code == 2 and out == "" and not Path("x.safetensors").exists()
    code, out, _ = cli("convert", "small:shufflenet", "x.pth", *err.split("allow it: ")[1].split())
    assert code == 0 and "small:shufflenet@x.safetensors" in out
    assert torch.equal(load_network("small:shufflenet@x.safetensors").head.weight, own.fc.weight)


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["netsim", "status", "nothing", "--debug"])
    with pytest.raises(ValueError, match="no run at"):
        main()


def test_more_pairs_than_images_is_said_before_the_store_is_touched(cli, tmp_path):
    code, _, err = cli("run", write(tmp_path / "s.yaml", pairs={"count": 4096, "shard_size": 32}), "--store", "run")
    assert code == 1 and "4096" in err and not (tmp_path / "run").exists()


def test_a_folder_that_is_not_there_is_said_before_the_store_is_touched(cli, tmp_path):
    code, _, err = cli("run", "demo", "--set", "images.source=folder:nothing", "--store", "run")
    assert code == 1 and "nothing" in err and not (tmp_path / "run").exists()


def test_images_of_one_label_cannot_make_pairs(cli, tmp_path):
    from PIL import Image

    (tmp_path / "images" / "cats").mkdir(parents=True)
    for index in range(12):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "images" / "cats" / f"{index}.png")
    settings = write(
        tmp_path / "s.yaml",
        images={"source": f"folder:{tmp_path / 'images'}", "size": 8},
        pairs={"count": 8, "shard_size": 4},
    )
    code, _, err = cli("run", settings, "--store", "run")
    assert code == 1 and "label" in err and not (tmp_path / "run").exists()


def test_a_store_of_other_settings_is_refused_and_kept(cli, finished, tmp_path):
    before = sorted(path for path in Path(finished.url).rglob("*"))
    code, _, err = cli(
        "run", write(tmp_path / "s.yaml", inversion={"iterations": 6, "batch_size": 8}), "--store", finished.url
    )
    assert code == 1 and "inversion.iterations is 5 there and 6 here; give another --store" in err
    assert sorted(path for path in Path(finished.url).rglob("*")) == before


def test_a_store_that_cannot_be_made_is_one_clear_line(cli, tmp_path):
    settings = write(tmp_path / "s.yaml")
    code, _, err = cli("run", settings, "--store", settings / "run")  # below a file
    assert code == 1 and err.startswith(f"netsim: {settings / 'run'}") and len(err.splitlines()) == 1


def test_a_checkpoint_that_does_not_fit_is_named(cli, tmp_path):
    from netsim.networks import load_network, weights_to_bytes

    (tmp_path / "vgg.safetensors").write_bytes(weights_to_bytes(load_network("small:vgg@none")))
    networks = ["small:resnet18@vgg.safetensors", "small:vgg@none"]
    code, _, err = cli("run", write(tmp_path / "s.yaml", networks=networks), "--store", "run")
    assert code == 1 and "resnet18" in err and not (tmp_path / "run").exists()


def test_a_port_in_use_is_said_with_the_way_out(tmp_path):
    settings = write(tmp_path / "s.yaml")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        env = os.environ | {
            "PREFECT_SERVER_API_PORT": str(other.getsockname()[1]),
            "PREFECT_HOME": str(tmp_path / "prefect"),
        }
        env.pop("PREFECT_API_URL", None)
        found = netsim("run", str(settings), "--store", "run", env=env, cwd=tmp_path)
    assert found.returncode == 1, found.stderr
    assert "is in use by a program that is not a Prefect server. Set PREFECT_SERVER_API_PORT" in found.stderr


def test_a_server_that_does_not_answer_is_said(tmp_path):
    env = os.environ | {
        "PREFECT_API_URL": f"http://127.0.0.1:{free_ports(1)[0]}/api",
        "PREFECT_HOME": str(tmp_path / "prefect"),
    }
    found = netsim("run", str(write(tmp_path / "s.yaml")), "--store", "run", env=env, cwd=tmp_path)
    assert found.returncode == 1 and "does not answer (" in found.stderr


def test_ctrl_c_stays_ctrl_c_when_a_library_makes_another_error_of_it():
    """As Prefect's serialisation of its settings does."""

    def interrupted() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ValueError("error calling a function") from None

    with pytest.raises(KeyboardInterrupt), preserve_keyboard_interrupt():
        interrupted()
    with pytest.raises(ValueError, match="its own"), preserve_keyboard_interrupt():
        raise ValueError("its own")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
