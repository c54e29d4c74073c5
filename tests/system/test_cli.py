"""The command line without a server: help, what it prints, and one clear error for each thing a user can get wrong."""

import argparse
import csv
import errno
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import torch
import yaml
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_PORT, temporary_settings

from flows.cli import console
from flows.cli.failures import explain_failure
from flows.cli.inspect import study
from flows.cli.main import app, main
from flows.cli.session import exit_code
from flows.cli.signals import Stopped, stopped_by_signals
from netsim.results.findings import headline
from netsim.results.results import load_results
from netsim.results.study import FLOOR, ROBUST_FLOOR
from support.seaweed import free_ports
from support.servers import NETSIM, netsim
from support.sweeps import TINY

ROOT = Path(__file__).parents[2]


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


COMMANDS = [
    "demo",
    "run",
    "plan",
    "add",
    "extend",
    "score",
    "drop",
    "list",
    "status",
    "results",
    "report",
    "study",
    "compare",
    "verify",
    "measure",
    "layers",
    "doctor",
    "settings",
    "convert",
    "certificates",
]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_of_every_command_says_what_it_is_for(cli, command):
    code, out, _ = cli(*command.split(), "--help")
    assert code == 0 and "Usage" in out
    assert ("--debug" in out and "For example:" in out and f"netsim {command}" in out) or not command


def test_every_command_is_in_a_panel_of_the_help(cli):
    out = cli("--help")[1]
    assert "Run sweeps" in out and "Read runs" in out and "─ Commands" not in out
    assert {command.name for command in app.registered_commands if command.name} == {"list"}
    assert {(command.name or command.callback.__name__) for command in app.registered_commands} == set(COMMANDS)


@pytest.mark.parametrize("command", ["status", "results", "verify", "report"])
@pytest.mark.parametrize("store", [["--store", "STORE"], ["--store=STORE"]])
def test_a_store_may_be_an_option_of_every_command(cli, command, store):
    code, out, _ = cli(command, *store)
    assert code == 1 and "No such option" not in out
    assert cli(command, "STORE")[2] == cli(command, *store)[2]


def test_an_option_without_its_store_is_refused(cli):
    code, _, err = cli("status", "--store")
    assert code == 2 and "Missing argument 'STORE'" in err


def test_completion_lists_commands(monkeypatch):
    env = os.environ | {"_NETSIM_COMPLETE": "complete_bash", "COMP_WORDS": "netsim st", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['netsim']; from flows.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["status", "study"]


def test_json_of_a_run_is_alone_on_standard_output(cli, finished):
    code, out, err = cli("run", "--store", finished.url, "--json")
    assert code == 0 and "nothing to do: the run is complete" in err
    assert json.loads(out)["networks"] == list(finished.settings.names)


def test_quiet_leaves_results_only(cli, finished):
    code, out, err = cli("run", "--store", finished.url, "--quiet")
    assert (code, err) == (0, "") and out.startswith("Natural similarity ") and "nothing to do" not in out
    assert "nothing to do" in cli("run", "--store", finished.url)[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "STORE", "--sample", "0"],
        ["score", "STORE", "small:resnet18@none"],
        ["plan", "run.yaml", "--tflops", "1"],
    ],
)
def test_quiet_draws_no_bar_in_a_terminal(cli, finished, tmp_path, monkeypatch, arguments):
    """While a bar is drawn, the cursor is hidden."""
    monkeypatch.setattr(console.progress, "_force_terminal", True)
    write(tmp_path / "run.yaml", networks=["small:vgg@none", "small:resnet18@none"])
    arguments = [finished.url if argument == "STORE" else argument for argument in arguments]
    code, out, _ = cli(*arguments)
    assert code == 0 and "\x1b[?25l" in out
    code, out, _ = cli(*arguments, "--quiet")
    assert code == 0 and out and "\x1b" not in out


def test_faults_of_a_store_are_listed_for_programs(cli, finished):
    code, out, _ = cli("verify", finished.url, "--json", "--quiet")
    content = json.loads(out)
    assert (code, content["faults"], content["repaired"]) == (0, [], False) and content["shards"] > 20


def test_measures_are_listed_for_programs(cli):
    assert json.loads(cli("measure", "--json")[1])["procrustes"]["title"]


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
    assert headline(results) in " ".join(cli("results", finished.url)[1].split())


def test_status_tells_that_no_server_knows_a_flow(cli, finished):
    with temporary_settings({PREFECT_API_URL: None, PREFECT_SERVER_API_PORT: free_ports(1)[0]}):
        out = " ".join(cli("status", finished.url)[1].split())
        content = json.loads(cli("status", finished.url, "--json")[1])
    assert "Whether a flow is running is unknown: no Prefect server answers at http://127.0.0.1:" in out
    assert content["flow"] is None and content["failures"] == []


def test_results_of_an_unfinished_run_are_what_is_there_and_exit_code_1(cli, finished, tmp_path):
    shutil.copytree(finished.url, tmp_path / "half")
    (row,) = (tmp_path / "half" / "commits" / "aggregate" / "inverted" / "vgg").iterdir()
    shutil.rmtree(row)
    code, out, err = cli("results", "half")
    assert code == 1 and "missing are 1 of 6 shards of aggregate" in " ".join(out.split())
    assert "Natural CKA, unbiased, 3 of 3 rows" in out and "Inverted CKA, unbiased, 2 of 3 rows" in out
    assert re.match(r"netsim: .*half is not finished: 1 of 6 .*; resume with `netsim run --store ", err)
    code, out, _ = cli("results", "half", "--json")
    assert code == 1 and json.loads(out)["finished"] is False


def test_report_writes_the_page_the_figures_and_the_tables(cli, finished, tmp_path):
    names = finished.settings.names
    chosen = ("--order", "name", "--estimator", "biased", "--range", "-0.1", "0.9", "--width", "9cm", "--title", "Mine")
    code, out, err = cli("report", finished.url, "-o", tmp_path / "out", "--networks", ",".join(names[:2]), *chosen)
    assert code == 0 and out.startswith("report: "), err
    written = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "heatmaps.pdf", "natural.csv", "inverted.csv", "caption.tex", "references.bib"} <= set(
        written
    )
    assert "<h1>Mine</h1>" in written["report.html"].read_text()
    assert "biased linear CKA" in (caption := written["caption.txt"].read_text()) and "from −0.1 to 0.9" in caption
    rows = list(csv.DictReader(written["inverted.csv"].open(newline="")))
    assert [row["through"] for row in rows[::2]] == sorted(names[:2])
    for option, message in ((("--range", "1", "0"), "LOW below HIGH"), (("--width", "9"), "width must be a length")):
        code, _, err = cli("report", finished.url, "-o", tmp_path / "other", *option)
        assert code == 2 and message in err and not (tmp_path / "other").exists()


def test_results_take_the_order_and_the_estimator_of_a_report(cli, finished):
    code, out, _ = cli("results", finished.url, "--order", "name", "--estimator", "biased")
    assert code == 0 and "Natural CKA, biased" in out
    content = json.loads(cli("results", finished.url, "--order", "name", "--json")[1])
    assert content["networks"] == sorted(finished.settings.names)
    assert cli("results", finished.url, "--order", "size")[0] == 2


def test_a_study_of_networks_that_are_all_standard_is_one_error(cli, finished, tmp_path):
    code, out, err = cli("study", finished.url, "--floor", "0", "-o", tmp_path / "out")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert err.startswith("netsim: a study must have networks of 2 levels of eps or more, got 1 (eps 0). Add robust")
    assert not (tmp_path / "out").exists()


def test_the_floors_of_the_command_are_those_of_a_study():
    defaults = {name: parameter.default for name, parameter in inspect.signature(study).parameters.items()}
    assert (defaults["floor"], defaults["robust_floor"]) == (FLOOR, ROBUST_FLOOR)


def test_everything_done_means_nothing_is_computed(cli, finished):
    """No server, no worker: the store says so."""
    code, out, _ = cli("run", "--store", finished.url)
    assert code == 0 and "nothing to do: the run is complete" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml"], "no settings file 'nowhere.yaml'"),
        (["run"], "no settings given. Give a YAML file, a sweep shipped with netsim (cifar10, cifar10-robust, demo, "),
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
        (["plan", "demo", "--set", "pairs.count=33"], "count must be a multiple of shard_size (32), got 33; use 32"),
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
    torch.save({"state_dict": own.state_dict(), "args": argparse.Namespace(lr=0.1)}, "x.pth")
    code, out, err = cli("convert", "small:shufflenet", "x.pth")
    assert code == 1 and out == "" and not Path("x.safetensors").exists()
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


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_a_signal_stops_even_when_a_library_makes_another_error_of_it(number, code):
    """As Prefect's serialisation of its settings does."""

    def interrupted() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ValueError("error calling a function") from None

    inherited = signal.getsignal(number)
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)  # a suite that runs below `nohup` ignores it
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped, stopped_by_signals():
        interrupted()
    assert exit_code(stopped.value) == code
    with pytest.raises(ValueError, match="its own"), stopped_by_signals():
        raise ValueError("its own")
    assert signal.getsignal(number) is before
    signal.signal(number, inherited)


def test_a_signal_that_is_ignored_stays_so():
    """`nohup` ignores SIGHUP, for a sweep that outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"PREFECT_SERVER_API_PORT": "abc"},
            r"settings of Prefect are invalid: PREFECT_SERVER_API_PORT: .*, got 'abc'",
        ),
        ({"PREFECT_API_URL": "http://[::1/api"}, r"settings of Prefect are invalid: .*Invalid IPv6 URL"),
        ({"PREFECT_HOME": "."}, r"settings of Prefect are invalid: .*line 1"),
        ({"DASK_CONFIG": "bad.yaml"}, r"settings of Dask are invalid: A dask config file at 'bad.yaml' is malformed"),
        (
            {"DASK_DISTRIBUTED": "yes"},
            r"settings of Dask are invalid: distributed must be a group of settings, got 'yes'",
        ),
        (
            {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "soon"},
            r"settings of Dask are invalid: Invalid time unit: soon",
        ),
    ],
)
def test_invalid_settings_of_prefect_and_dask_are_one_clear_line(variables, message, tmp_path):
    (tmp_path / "profiles.toml").write_text('active = "x\n')
    (tmp_path / "bad.yaml").write_text("distributed: [\n")
    env = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect")} | variables
    env.pop("PREFECT_PROFILES_PATH", None)
    code = "from flows.cli.orchestrators import load_orchestrators; load_orchestrators(False)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    *_, last = done.stderr.splitlines()
    assert re.match(f"netsim.errors.SettingsError: the {message}", last), done.stderr


def server_error(url: str) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("", request=httpx.Request("POST", url), response=httpx.Response(500))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ImportError("libtorch.so: failed to map segment from shared object"),
            "not enough memory (ImportError: libtorch",
        ),
        (MemoryError(), "not enough memory (MemoryError: )"),
        (RuntimeError("can't start new thread"), "not enough memory (RuntimeError: can't"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "not enough memory (OSError: [Errno 12]"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left on a disk (OSError: [Errno 28]"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "unexpected OSError: [Errno 5]"),
        (httpx.ConnectError("refused"), "the Prefect server does not answer any more (ConnectError: refused)"),
        (
            server_error("http://me:secret@host:4200/api/flows/"),
            "the Prefect server at host:4200 failed at /api/flows/",
        ),
        (KeyError("total_threads"), "unexpected KeyError: 'total_threads'\nrun it again with --debug"),
    ],
)
def test_errors_of_libraries_are_explained_where_the_reason_is_known(error, line):
    explained = explain_failure(error)
    assert explained.startswith(f"netsim: {line}")
    assert "please report it" in explained or len(explained.splitlines()) == 1


def test_a_limit_of_the_address_space_is_named(tmp_path):
    """The first large import fails under it, whatever that is."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1_000_000_000, 1_000_000_000));"
    code = f"{limit} from flows.cli.main import main; main()"
    path = write(tmp_path / "s.yaml")
    command = [sys.executable, "-c", code, "run", str(path), "--store", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "Address space is limited to 1.0 GB: raise `ulimit -v`" in done.stderr


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_stream_neither_ends_a_command_nor_gives_its_descriptor_to_a_file(closed, finished, tmp_path):
    code = """
import os, subprocess, sys
from flows.cli.main import main
def check():
    shared = subprocess.run(["sh", "-c", "true <&0 >&1 2>&2"], check=False).returncode == 0
    with open(sys.argv.pop(), "w") as file:
        file.write(f"{file.fileno() > 2} {shared}")
import atexit
atexit.register(check)
main()
"""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code, "status", finished.url]
    done = subprocess.run([*command, str(tmp_path / "seen")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2  # the last argument is for this test only
    assert (tmp_path / "seen").read_text() == "True True"


def test_a_command_whose_reader_has_left_does_its_work(finished, tmp_path):
    """As `netsim run ... | head` leaves it; a sweep takes days, and nobody may read its progress to the end."""
    command = [*NETSIM, "report", finished.url, "-o", str(tmp_path / "out")]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
