"""The sweep as users run it: command line, real Prefect server, Dask worker processes, and interruptions."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml
from distributed import Client

from netsim.store.coverage import SUMS
from netsim.store.layout import moments_path
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, STAGES
from support.servers import NETSIM, auth_of, netsim, netsim_in_process, wait_until
from support.sweeps import TINY, new_run, run_all
from support.workers import forkserver_of, workers_of

SLOW = TINY | {"pairs": {"count": 48, "shard_size": 8}, "inversion": {"iterations": 60, "batch_size": 8}}
"""Settings of a sweep that takes long enough to be caught in the middle of its inversions."""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "slow.yaml"
    path.write_text(yaml.safe_dump(SLOW))
    return path


def ask(server: dict[str, str], kind: str, **filters: Any) -> list[dict[str, Any]]:
    """List what the server has of a kind, such as `flow_runs`."""
    url = f"{server['PREFECT_API_URL']}/{kind}/filter"
    answer = httpx.post(url, json=filters | {"limit": 200}, auth=auth_of(server), timeout=60, verify=False)
    return answer.raise_for_status().json()


def runs_of(server: dict[str, str], store: Path) -> list[dict[str, Any]]:
    """List the flow runs of a store, including subflows."""
    return [run for run in ask(server, "flow_runs") if run["parameters"].get("store") == str(store)]


def task_runs_of(server: dict[str, str], store: Path) -> list[dict[str, Any]]:
    """List the task runs of a store."""
    ids = [run["id"] for run in runs_of(server, store)]
    return ask(server, "task_runs", task_runs={"flow_run_id": {"any_": ids}}) if ids else []


def task_runs_at_start(server: dict[str, str]) -> list[dict[str, Any]]:
    """List the latest task runs as they were when they began."""
    filters = {"filter": {"event": {"name": ["prefect.task-run.Running"]}}, "limit": 50}
    answer = httpx.post(f"{server['PREFECT_API_URL']}/events/filter", json=filters, auth=auth_of(server), timeout=60)
    return [event["payload"]["task_run"] for event in answer.raise_for_status().json()["events"]]


def without_cohort(name: str) -> str:
    """Drop the cohort from the name of a task run: `embed-natural/e4075f0de53a-0000` -> `embed-natural-0000`."""
    return re.sub(r"/[0-9a-f]{12}-", "-", name)


def values_of(run: Run) -> dict[str, np.ndarray]:
    """Read the values that any difference in a sweep would change, whichever units have them."""
    moments = {
        f"{set_name} {pair}": run.array(moments_path(unit))[SUMS.of_unit(run, unit).index(pair)]
        for set_name, units in SUMS.covered(run, AGGREGATE.units_done(run)).items()
        for pair, unit in units.items()
    }
    losses = {name: run.array(f"inverted/{name}/losses")[: run.settings.pairs.count] for name in run.sweep.names}
    return moments | losses


def assert_same_bits(run: Run, other: Run) -> None:
    """Compare the values of two runs bit by bit."""
    actual, expected = values_of(run), values_of(other)
    assert actual.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(actual[key], values, err_msg=key)


def test_a_sweep_gives_the_numbers_of_the_library_and_shows_them_in_the_ui(server, finished, tmp_path):
    path, store = tmp_path / "tiny.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(TINY))
    first = netsim("run", str(path), "--store", str(store), "--workers", "2", env=server, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert_same_bits(Run.open(str(store)), finished)

    def states() -> dict[str, str]:
        runs = [*runs_of(server, store), *task_runs_of(server, store)]
        return {without_cohort(run["name"]): run["state_name"] for run in runs}

    def id_of(name: str) -> str:
        (run,) = (run for run in runs_of(server, store) if run["name"] == name)
        return run["id"]

    def artifacts_of(name: str) -> dict[str, str]:
        attached = ask(server, "artifacts", artifacts={"flow_run_id": {"any_": [id_of(name)]}})
        return {artifact["key"]: artifact["type"] for artifact in attached}

    shown = (
        "train-vgg",
        "draw-0000",
        "invert-resnet18-0000",
        "embed-inverted/vgg-0000",
        "aggregate-natural/vgg-4",
        "report",
    )
    wait_until(
        lambda: set(shown) <= set(states()) and set(states().values()) == {"Completed"}, seconds=120, what=states
    )
    landing = re.search(r"^follow it at http://.*/runs/flow-run/([-0-9a-f]{36})$", first.stdout, re.MULTILINE)
    assert landing is not None and landing[1] == id_of("sweep-run")
    progress = {f"run-{stage.name}": "progress" for stage in STAGES if stage.total(finished.sweep)}
    tables = {"natural-cka": "table", "inverted-cka": "table", "heatmaps": "image", "summary": "markdown"}
    tables |= {"losses": "table", "gallery": "image", "throughput-invert": "table", "throughput-embed": "table"}
    shown_there = progress | {f"run-{key}": kind for key, kind in tables.items()}
    assert shown_there.items() <= artifacts_of("sweep-run").items()
    assert not artifacts_of("train-run") and not artifacts_of("compare-run")

    tags = {without_cohort(run["name"]): run["tags"] for run in task_runs_of(server, store)}
    assert set(tags["embed-inverted/vgg-0000"]) == {f"store:{store}", "stage:embed", "network:vgg"}
    assert set(tags["embed-natural-0000"]) == {f"store:{store}", "stage:embed"}
    begun = {without_cohort(run["name"]): set(run["tags"]) for run in task_runs_at_start(server)}
    assert begun["embed-natural-0000"] == set()  # or each would ask the server for slots of them first

    tasks_before = len(task_runs_of(server, store))
    second = netsim_in_process("run", str(path), "--store", str(store), env=server, cwd=tmp_path)
    assert second.returncode == 0 and "nothing to do: the run is complete" in second.stdout
    assert len(task_runs_of(server, store)) == tasks_before

    printed = json.loads(netsim_in_process("results", str(store), "--json", env=server, cwd=tmp_path).stdout)
    cells = np.array(printed["inverted"]["cka_unbiased"])
    assert printed["inverted"]["mean_unbiased"]["value"] == pytest.approx(cells[~np.eye(3, dtype=bool)].mean())
    assert printed["networks"] == ["vgg", "resnet18", "shufflenet"] and set(printed["accuracy"]) == set(
        printed["networks"]
    )
    assert printed["converged"] == dict.fromkeys(printed["networks"], False)  # 5 iterations are not enough
    assert "WARNING  Not converged: vgg (" in second.stdout

    with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as client:

        def analyze(command: str, *arguments: str) -> str:
            where = ("--scheduler", client.scheduler.address)
            done = netsim_in_process(command, str(store), *arguments, *where, env=server, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert "STIR (unbiased linear" in analyze("measure", "agreement", "stir")
        layers = ("--layer", "layer1", "--layer", "features.0", "--activations", "pooled")
        written = analyze("layers", "resnet18", "vgg", *layers)
        shown = json.loads(analyze("layers", "resnet18", "vgg", *layers, "--json"))
    assert shown["layers"] == [["layer1"], ["features.0"]]
    assert list(shown["sets"]) == ["natural", "inverted/resnet18", "inverted/vgg"]
    assert {np.shape(cells["cka_unbiased"]) for cells in shown["sets"].values()} == {(1, 1)}
    assert re.search(r"layers-resnet18-vgg-pooled-[0-9a-f]{6}\.csv", written)
    assert {"measure-stir/inverted/vgg-4", "measure-agreement/natural/vgg-4"} <= set(states())
    assert artifacts_of("measure-run") == {"run-measure": "progress", "run-measures": "table"}
    assert set(artifacts_of("layers-run").values()) == {"progress", "table", "image"}
    wait_until(lambda: set(states().values()) == {"Completed"}, seconds=120, what=states)


@pytest.fixture
def start(settings: Path, tmp_path: Path, server: dict[str, str]) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start the command in its own process group, as a terminal does; none of its processes outlives the test."""
    command = [*NETSIM, "run", str(settings), "--store", str(tmp_path / "run")]
    command += ["--workers", "2", "--shards-per-task", "2"]
    started: list[subprocess.Popen[bytes]] = []

    def run() -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("wb") as output:
            options: dict[str, Any] = {"stdout": output, "stderr": output, "start_new_session": True}
            started.append(subprocess.Popen(command, env=server, cwd=tmp_path, **options))
        return started[-1]

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def inverted_shards(store: Path) -> set[tuple[str, int]]:
    """List the committed inversions; none if there is no store yet, or no sweep was asked of it."""
    return set(Run.open(str(store)).done("invert")) if any(store.glob("sweeps/*.json")) else set()


def wait_for_more(store: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until another inverted shard is committed; the command must still be running then."""
    before = inverted_shards(store)

    def more() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
        return len(inverted_shards(store)) > len(before)

    wait_until(more, seconds=300, what=lambda: log.read_text(encoding="utf-8")[-3000:])


def records(store: Path) -> dict[Path, str]:
    """Read all commit records."""
    return {path: path.read_text() for path in (store / "commits").rglob("*.json")}


@pytest.mark.timeout(900)
def test_a_sweep_that_is_interrupted_and_then_loses_workers_ends_with_the_same_bits(server, start, tmp_path):
    """Ctrl-C, the same command, kill -9 of a worker, and of the process that all workers are forked from.

    No stored shard is computed again; tests/support/faults.py does worse.
    """
    store, log = tmp_path / "run", tmp_path / "log"

    process = start()
    wait_for_more(store, process, log)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C in a terminal reaches the whole group
    assert process.wait(timeout=60) == 130
    said = log.read_text()
    assert (
        "stopped. Done: train 3/3, draw 6/6, invert " in said and f"run `netsim run --store {store}` to resume" in said
    )
    assert "Traceback" not in said, said
    after_interrupt = records(store)

    process = start()
    wait_for_more(store, process, log)
    busiest(workers_of(process.pid)).kill()
    wait_for_more(store, process, log)
    forkserver = forkserver_of(process.pid)
    assert forkserver is not None
    forkserver.kill()
    wait_until(lambda: process.poll() is not None, seconds=240, what=log.read_text)
    assert process.returncode == 0, log.read_text()[-3000:]
    assert after_interrupt.items() <= records(store).items()

    quiet = new_run(str(tmp_path / "quiet"), Run.open(str(store)).settings)
    run_all(quiet)
    assert_same_bits(Run.open(str(store)), quiet)

    begun = sorted(runs_of(server, store), key=lambda run: run["start_time"])
    assert [run["state_name"] for run in begun if run["name"] == "sweep-run"] == ["Cancelled", "Completed"]

    def open_runs() -> set[tuple[str, str, str]]:
        runs = [*runs_of(server, store), *task_runs_of(server, store)]
        opened = {"Running", "Pending", "Scheduled", "Retrying"}
        return {(run["name"], run["state_name"], run["start_time"]) for run in runs if run["state_name"] in opened}

    wait_until(lambda: not open_runs(), seconds=120, what=open_runs)  # states reach the server a little later


def test_runs_that_a_sweep_left_open_are_closed_by_the_next_command_unless_they_may_be_alive(
    server, finished, tmp_path
):
    """A command that finds nothing to do closes what Prefect shows as running, and leaves living processes alone."""
    from prefect import task
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Crashed, Running

    from flows.sweep import sweep
    from tasks.processes import this_process

    this = this_process()
    sweeps = {
        str(this): Running(),
        str(this._replace(created=1)): Running(),  # a process with the same number and another start
        str(this._replace(namespace="1", pid=1)): Running(),  # of another container
        str(this._replace(namespace="1", pid=2)): Crashed(),  # as deploy/automations.yaml marks it
    }
    with temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}), get_client(sync_client=True) as client:
        runs = []
        for process, state in sweeps.items():
            tags = [f"store:{finished.url}", process]
            runs.append(client.create_flow_run(sweep, tags=tags, state=state))
            work = task(finished.read, tags=tags)
            runs.append(client.create_task_run(work, flow_run_id=runs[-1].id, dynamic_key="0", state=Running()))
        again = netsim("run", "--store", finished.url, env=server, cwd=tmp_path)
        assert again.returncode == 0 and "nothing to do: the run is complete" in again.stdout
        flow_states = [client.read_flow_run(run.id).state_name for run in runs[::2]]
        task_states = [client.read_task_run(run.id).state_name for run in runs[1::2]]
        for run in runs[::2]:
            client.delete_flow_run(run.id)
    assert flow_states == task_states == ["Running", "Crashed", "Running", "Crashed"]


def busiest(processes: list[psutil.Process]) -> psutil.Process:
    """Return the process with the most CPU time."""
    return max(processes, key=lambda process: sum(process.cpu_times()[:2]))


def alive(process: psutil.Process) -> bool:
    """Tell whether a process runs and is no zombie."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_full_disk_in_a_worker_ends_the_run_with_one_clear_error(server, tmp_path):
    """A limit on file size acts as a full disk for weights of 650 kB, and leaves room for everything smaller."""
    path, store = tmp_path / "tiny.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(TINY))
    limit = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, {resource.RLIM_INFINITY}));"
    code = f"{limit} from flows.cli.main import main; main()"
    command = [sys.executable, "-c", code, "run", str(path), "--store", str(store), "--workers", "1"]
    done = subprocess.run(command, env=server, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"netsim: no space left for {store} (File too large); free some"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert ("vgg", 0) not in Run.open(str(store)).done("train")


def test_the_parameter_form_is_the_settings_class_and_the_server_holds_to_it(server):
    """The UI builds its form from the schema, and the API refuses invalid parameters before a run exists."""
    from prefect.client.orchestration import get_client
    from prefect.deployments.runner import RunnerDeployment
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.sweep import sweep

    with temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}), get_client(sync_client=True) as client:
        deployment = client.read_deployment(RunnerDeployment.from_flow(sweep, name="form").apply())
        fields = deployment.parameter_openapi_schema["definitions"]
        assert fields["InversionSettings"]["properties"]["iterations"]["exclusiveMinimum"] == 0
        assert fields["InversionSettings"]["properties"]["step_size"]["description"].startswith("L2 length of one step")
        assert {"ImageSettings", "TrainingSettings", "PairSettings", "Local", "Slurm"} <= set(fields)
        assert fields["Slurm"]["properties"]["walltime"]["description"].startswith("Walltime of a job, as in 04:00:00")

        def create(settings: dict[str, Any], **cluster: Any) -> httpx.Response:
            url = f"{server['PREFECT_API_URL']}/deployments/{deployment.id}/create_flow_run"
            where = {"cluster": {"kind": "slurm"} | cluster}
            return httpx.post(url, json={"parameters": {"settings": settings, "store": "/nowhere"} | where})

        refused = create(TINY | {"inversion": {"iterations": -5}})
        assert refused.status_code == 409 and "less than or equal to the minimum of 0" in refused.text
        assert "iteration" in create(TINY | {"inversion": {"iteration": 5}}).text
        assert create(TINY, walltime="soon").status_code == 409
        accepted = create(TINY)
        assert accepted.status_code == 201
        client.delete_flow_run(accepted.json()["id"])
